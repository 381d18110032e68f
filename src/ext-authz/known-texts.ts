/**
 * Texts that come again and again in messages. Turning the same bytes into text anew costs time for the text and, as it is
 * another string each time, for every look-up by it.
 */
export class KnownTexts {
  readonly #known = new Map<number, { readonly bytes: Buffer; readonly text: string }>();
  readonly #capacity: number;
  readonly #maxBytes: number;
  readonly #read: (text: string) => string;

  /** @param options how many texts are kept, of how many bytes at most, and what is made of each */
  constructor(options: {
    readonly capacity: number;
    readonly maxBytes: number;
    readonly read: (text: string) => string;
  }) {
    this.#capacity = options.capacity;
    this.#maxBytes = options.maxBytes;
    this.#read = options.read;
  }

  /** The text of `bytes` from `at` to `end`, as UTF-8. */
  read(bytes: Buffer, at: number, end: number): string {
    if (end - at > this.#maxBytes) return this.#read(bytes.toString('utf8', at, end));
    const mark = markOf(bytes, at, end);
    const known = this.#known.get(mark);
    // INVARIANT: what is answered for a mark is compared byte by byte: senders choose the bytes.
    if (known !== undefined && isAt(known.bytes, bytes, at, end)) return known.text;
    const text = this.#read(bytes.toString('utf8', at, end));
    if (this.#known.size >= this.#capacity) this.#known.clear();
    // Not out of Buffer's pool, of which each would keep eight kilobytes.
    const own = Buffer.allocUnsafeSlow(end - at);
    bytes.copy(own, 0, at, end);
    this.#known.set(mark, { bytes: own, text });
    return text;
  }
}

function isAt(known: Buffer, bytes: Buffer, at: number, end: number): boolean {
  if (known.length !== end - at) return false;
  // Calling out costs more than to compare a few.
  if (known.length > denseBytes) return known.compare(bytes, at, end) === 0;
  for (let i = 0; i < known.length; i++) if (known[i] !== bytes[at + i]) return false;
  return true;
}

/** Of the length and of some of the bytes: of all when they are few, else more of the end, where names and signatures differ. */
function markOf(bytes: Buffer, at: number, end: number): number {
  let mark = end - at;
  const dense = Math.max(at, end - denseBytes);
  for (let i = at; i < dense; i += sparseStep) mark = (Math.imul(mark, 31) + (bytes[i] ?? 0)) | 0;
  for (let i = dense; i < end; i++) mark = (Math.imul(mark, 31) + (bytes[i] ?? 0)) | 0;
  return mark;
}

const denseBytes = 64;
const sparseStep = 61;
