/**
 * The lines of a stream that are not empty, newline not counted; null for one that is longer than `maxBytes`. What is
 * beyond that is passed over, not kept.
 */
export async function* readJsonLines(
  stream: AsyncIterable<Buffer>,
  maxBytes: number,
): AsyncGenerator<Buffer | null> {
  let parts: Buffer[] = [];
  let size = 0;
  const take = (): Buffer | null | undefined => {
    const line = size > maxBytes ? null : Buffer.concat(parts);
    parts = [];
    size = 0;
    return line !== null && /^[ \t\r]*$/.test(line.subarray(0, 80).toString('latin1')) && line.length <= 80
      ? undefined
      : line;
  };
  for await (const chunk of stream) {
    for (let at = 0; at < chunk.length;) {
      const newline = chunk.indexOf(0x0a, at);
      const end = newline === -1 ? chunk.length : newline;
      size += end - at;
      if (size <= maxBytes) parts.push(chunk.subarray(at, end));
      else parts = [];
      at = end + 1;
      if (newline === -1) continue;
      const line = take();
      if (line !== undefined) yield line;
    }
  }
  const last = take();
  if (last !== undefined) yield last;
}
