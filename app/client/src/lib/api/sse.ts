// Server-sent events out of a byte stream. Chunks may be cut anywhere: inside a line, inside a character.

export class SseParser {
  private readonly decoder = new TextDecoder('utf-8');
  private carry = '';
  private data: string[] = [];

  /** Takes the next bytes and answers the data of every event that is now complete. */
  push(chunk: Uint8Array): string[] {
    return this.take(this.decoder.decode(chunk, { stream: true }));
  }

  /** The stream is over: an event whose last empty line is missing still counts. */
  end(): string[] {
    const rest = this.take(this.decoder.decode());
    const last = this.carry === '' ? [] : this.line(this.carry);
    this.carry = '';
    return [...rest, ...last, ...this.line('')];
  }

  private take(text: string): string[] {
    this.carry += text;
    const found: string[] = [];
    for (;;) {
      const at = this.carry.search(/[\r\n]/);
      // A carriage return at the very end may be the first half of \r\n.
      if (at < 0 || (this.carry[at] === '\r' && at === this.carry.length - 1)) return found;
      const width = this.carry.startsWith('\r\n', at) ? 2 : 1;
      const line = this.carry.slice(0, at);
      this.carry = this.carry.slice(at + width);
      found.push(...this.line(line));
    }
  }

  private line(line: string): string[] {
    if (line === '') {
      const event = this.data;
      this.data = [];
      return event.length > 0 ? [event.join('\n')] : [];
    }
    if (line.startsWith(':')) return []; // a comment: the service's heartbeat
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    if (field === 'data') this.data.push(colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, ''));
    return [];
  }
}

/** The data of each event of a response's body. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const parser = new SseParser();
  const reader = body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      for (const event of done ? parser.end() : parser.push(value)) yield event;
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
