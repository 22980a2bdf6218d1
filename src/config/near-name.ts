/**
 * The name that a mistyped one was probably meant to be: the nearest by edits, at most a third of its length away.
 * @returns undefined when none is near
 */
export function findNearName(wrong: string, names: Iterable<string>): string | undefined {
  const typed = wrong.slice(0, 64).toLowerCase();
  let best: string | undefined;
  let bestEdits = Math.max(1, Math.floor(typed.length / 3)) + 1;
  for (const name of names) {
    const edits = countEdits(typed, name.toLowerCase());
    if (edits < bestEdits) {
      best = name;
      bestEdits = edits;
    }
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours that make one text the other. */
function countEdits(from: string, to: string): number {
  let before: number[] = [];
  let above = Array.from({ length: to.length + 1 }, (_, column) => column);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const cost = from[row - 1] === to[column - 1] ? 0 : 1;
      let edits = Math.min(above[column]! + 1, current[column - 1]! + 1, above[column - 1]! + cost);
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      if (row > 1 && column > 1 && swapped) edits = Math.min(edits, before[column - 2]! + 1);
      current.push(edits);
    }
    before = above;
    above = current;
  }
  return above[to.length]!;
}
