import { describe, expect, it } from 'vitest';
import { events, SseParser } from './sse';

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

function parse(...chunks: readonly Uint8Array[]): string[] {
  const parser = new SseParser();
  return [...chunks.flatMap((chunk) => parser.push(chunk)), ...parser.end()];
}

const STREAM = ': keep-alive\n\ndata: {"t":"显存不足😀é"}\n\ndata: 第二\ndata:行\n\nevent: x\nid: 7\ndata: [DONE]\n\n';
const EXPECTED = ['{"t":"显存不足😀é"}', '第二\n行', '[DONE]'];

describe('SseParser', () => {
  it('reads events, joins data lines, skips comments and other fields', () => {
    expect(parse(encode(STREAM))).toEqual(EXPECTED);
  });

  for (const [name, newline] of [['LF', '\n'], ['CRLF', '\r\n'], ['CR', '\r']] as const) {
    const bytes = encode(STREAM.replaceAll('\n', newline));

    it(`survives every split in two (${name})`, () => {
      for (let at = 0; at <= bytes.length; at++) {
        expect(parse(bytes.slice(0, at), bytes.slice(at))).toEqual(EXPECTED);
      }
    });

    it(`survives every split in three (${name})`, () => {
      for (let a = 0; a <= bytes.length; a++) {
        for (let b = a; b <= bytes.length; b++) {
          expect(parse(bytes.slice(0, a), bytes.slice(a, b), bytes.slice(b))).toEqual(EXPECTED);
        }
      }
    });

    it(`survives one byte at a time (${name})`, () => {
      expect(parse(...Array.from(bytes, (byte) => Uint8Array.of(byte)))).toEqual(EXPECTED);
    });
  }

  it('takes an event whose last empty line is missing', () => {
    expect(parse(encode('data: a\n\ndata: b'))).toEqual(['a', 'b']);
    expect(parse(encode('data: a\n\ndata: b\n'))).toEqual(['a', 'b']);
  });

  it('takes off one space after the colon, no more', () => {
    expect(parse(encode('data:  a\n\ndata:b\n\ndata\n\n'))).toEqual([' a', 'b', '']);
  });

  it('answers an event as soon as it is complete', () => {
    const parser = new SseParser();
    expect(parser.push(encode('data: a\n'))).toEqual([]);
    expect(parser.push(encode('\nda'))).toEqual(['a']);
  });

  it('says nothing for an empty stream or comments alone', () => {
    expect(parse()).toEqual([]);
    expect(parse(encode(': one\n\n: two\n\n'))).toEqual([]);
  });
});

describe('events', () => {
  it('reads a response body and lets go of it when the reader leaves', async () => {
    let cancelled = false;
    const body = new ReadableStream<Uint8Array>({
      start: (controller) => controller.enqueue(encode('data: 1\n\ndata: 2\n\n')),
      cancel: () => void (cancelled = true),
    });
    for await (const event of events(body)) {
      expect(event).toBe('1');
      break;
    }
    expect(cancelled).toBe(true);
  });
});
