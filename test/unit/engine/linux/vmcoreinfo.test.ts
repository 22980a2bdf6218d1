import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MAX_VMCOREINFO_BYTES, Vmcoreinfo } from '#src/engine/linux/vmcoreinfo.js';

const parse = (text: string) => Vmcoreinfo.parse(Buffer.from(text, 'latin1'));

describe('a VMCOREINFO text', () => {
  test('gives numbers in decimal, and in hexadecimal where decimal does not use up the text', () => {
    const info = parse(
      'NUMBER(phys_base)=-362807296\nNUMBER(PG_lru)=4\nNUMBER(VMALLOC_START)=0xffff800008000000\nNUMBER(odd)=12ab\n',
    );
    expect(info.number('phys_base')).toBe(-362807296n);
    expect(info.number('PG_lru')).toBe(4n);
    expect(info.number('VMALLOC_START')).toBe(0xffff800008000000n);
    expect(info.number('odd')).toBe(0x12abn);
  });

  test('gives symbols and the KASLR offset in hexadecimal without a prefix', () => {
    const info = parse('SYMBOL(_stext)=ffffffff81000000\nKERNELOFFSET=2cc00000\n');
    expect(info.symbol('_stext')).toBe(0xffffffff81000000n);
    expect(info.kernelOffset).toBe(0x2cc00000n);
  });

  test('leaves out a last line that was cut off', () => {
    const info = parse('OSRELEASE=6.1.0\nNUMBER(phys_base)=123');
    expect(info.release).toBe('6.1.0');
    expect(info.number('phys_base')).toBeUndefined();
    expect(info.text).toBe('OSRELEASE=6.1.0\n');
  });

  test('ends at the first NUL and takes the last of two equal keys', () => {
    const info = parse('OSRELEASE=a\nOSRELEASE=b\n\0OSRELEASE=c\n');
    expect(info.release).toBe('b');
  });

  test('has no sizes or offsets that are negative, absurd or no numbers', () => {
    const info = parse('SIZE(page)=-1\nOFFSET(page.flags)=99999999999999999999\nLENGTH(x)=0x10\nSYMBOL(y)=zz\n');
    expect(info.size('page')).toBeUndefined();
    expect(info.offset('page.flags')).toBeUndefined();
    expect(info.length('x')).toBeUndefined();
    expect(info.symbol('y')).toBeUndefined();
  });

  test('is never more than 64 KiB, whatever the bytes are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.nat(40), (bytes, times) => {
        const info = Vmcoreinfo.parse(Buffer.concat(Array(times).fill(bytes)));
        expect(info.text.length).toBeLessThanOrEqual(MAX_VMCOREINFO_BYTES);
        expect(info.text === '' || info.text.endsWith('\n')).toBe(true);
      }),
    );
  });
});
