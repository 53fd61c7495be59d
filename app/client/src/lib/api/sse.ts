// Server-sent events from a byte stream. Chunks may end anywhere: inside a line, inside a character.

export class SseParser {
  private readonly decoder = new TextDecoder('utf-8');
  private buffer = '';
  private data: string[] = [];

  /** Adds bytes and returns the data of every event that is now complete. */
  push(chunk: Uint8Array): string[] {
    return this.parse(this.decoder.decode(chunk, { stream: true }));
  }

  /** Ends the stream: an event whose last empty line is missing still counts. */
  end(): string[] {
    const complete = this.parse(this.decoder.decode());
    const last = this.buffer === '' ? [] : this.line(this.buffer);
    this.buffer = '';
    return [...complete, ...last, ...this.line('')];
  }

  private parse(text: string): string[] {
    this.buffer += text;
    const complete: string[] = [];
    for (;;) {
      const at = this.buffer.search(/[\r\n]/);
      // A carriage return at the very end may be the first half of \r\n.
      if (at < 0 || (this.buffer[at] === '\r' && at === this.buffer.length - 1)) return complete;
      const width = this.buffer.startsWith('\r\n', at) ? 2 : 1;
      const line = this.buffer.slice(0, at);
      this.buffer = this.buffer.slice(at + width);
      complete.push(...this.line(line));
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
