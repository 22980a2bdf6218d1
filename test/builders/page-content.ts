/** Pages by letter: `A` to `Z` hard to compress, `a` to `z` easy, `.` zero. The same letter gives the same page. */

export function pageOf(letter: string, pageSize = 4096): Buffer {
  const page = Buffer.alloc(pageSize);
  if (letter === '.') return page;
  const code = letter.charCodeAt(0);
  if (letter >= 'a') {
    const text = `page ${letter} of the guest, line `;
    for (let at = 0, line = 0; at < pageSize; line++)
      at += page.write(`${text}${line % (code - 90)}\n`, at, 'latin1') || 1;
    return page;
  }
  let state = code * 2654435761;
  for (let at = 0; at < pageSize; at += 4) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    page.writeInt32LE(state | 0, at);
  }
  return page;
}

export function pagesOf(letters: string, pageSize = 4096): Buffer {
  return Buffer.concat([...letters].map((letter) => pageOf(letter, pageSize)));
}
