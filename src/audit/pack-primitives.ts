// INVARIANT: these functions run in a browser too, as their own text: they name nothing but each other, those of
// pack-verifier.ts and what every browser has. Of other files they take types alone.

/** A signed note: its text, and the signatures below it. */
type Note = {
  readonly text: string;
  readonly signatures: readonly { readonly name: string; readonly bytes: Uint8Array }[];
};

/** A key that verifies notes. */
export type PackKey = { readonly name: string; readonly keyId: string; readonly raw: Uint8Array };

/** A checkpoint that was signed with the expected key, or why it was not. */
export type OpenedCheckpoint =
  | { readonly origin: string; readonly size: number; readonly root: Uint8Array }
  | { readonly problem: string };

/** SHA-256, by WebCrypto. */
export async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', new Uint8Array(bytes)));
}

/** UTF-8. */
export function toBytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Lower-case hex. */
export function toHex(bytes: Uint8Array): string {
  const digits = '0123456789abcdef';
  let text = '';
  for (const byte of bytes) text += (digits[byte >> 4] ?? '') + (digits[byte & 15] ?? '');
  return text;
}

/** The bytes of base64 with padding; undefined for anything that is not exactly that. */
export function fromBase64(text: string): Uint8Array | undefined {
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(text)) return undefined;
  const decoded = atob(text);
  // Bits behind the last byte would give one value several texts.
  return btoa(decoded) === text ? Uint8Array.from(decoded, (one) => one.charCodeAt(0)) : undefined;
}

/** Whether both hold the same bytes. */
export function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** Bytes one after the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** RFC 6962 section 2.1. */
export function hashLeaf(leaf: Uint8Array): Promise<Uint8Array> {
  return sha256(join(Uint8Array.of(0), leaf));
}

/** RFC 6962 section 2.1. */
export function hashNode(left: Uint8Array, right: Uint8Array): Promise<Uint8Array> {
  return sha256(join(Uint8Array.of(1), left, right));
}

/** A number as a checkpoint, a proof or a record has it; undefined for any other text. */
export function readSize(text: string): number | undefined {
  return /^(0|[1-9][0-9]{0,15})$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined;
}

/** A verifier key, `name+keyId+base64`; undefined when it is none. See c2sp.org/signed-note. */
export async function readPackKey(text: string): Promise<PackKey | undefined> {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)$/.exec(text);
  const bytes = fromBase64(match?.[3] ?? '');
  if (match === null || bytes?.length !== 33 || bytes[0] !== 1) return undefined;
  const [, name = '', keyId = ''] = match;
  const digest = await sha256(join(toBytes(`${name}\n`), bytes));
  return toHex(digest.slice(0, 4)) === keyId ? { name, keyId, raw: bytes.slice(1) } : undefined;
}

/** Opens a checkpoint, c2sp.org/tlog-checkpoint, that the key must have signed. */
export async function openPackCheckpoint(note: string, key: PackKey): Promise<OpenedCheckpoint> {
  const parsed = readNote(note);
  if (parsed === undefined) return { problem: 'it is no signed note' };
  let signed = 0;
  for (const { name, bytes } of parsed.signatures) {
    if (name !== key.name || toHex(bytes.slice(0, 4)) !== key.keyId) continue;
    // A wrong signature under the expected key refuses the note, whoever else signed it.
    if (!(await isSigned(toBytes(parsed.text), bytes.slice(4), key.raw)))
      return { problem: 'its signature is wrong' };
    signed++;
  }
  if (signed === 0) return { problem: `it is not signed by ${key.name}+${key.keyId}` };
  const [origin = '', size = '', root = '', end, ...more] = parsed.text.split('\n');
  const [entries, bytes] = [readSize(size), fromBase64(root)];
  if (end !== '' || more.length > 0 || entries === undefined || bytes?.length !== 32)
    return { problem: 'it is no checkpoint' };
  return origin === key.name ? { origin, size: entries, root: bytes } : { problem: 'it is of another log' };
}

/** The text and the signatures of a note; undefined when it is none. */
export function readNote(note: string): Note | undefined {
  const end = note.lastIndexOf('\n\n');
  const text = note.slice(0, end + 1);
  const lines = note.slice(end + 2);
  if (note.length > 65_536 || end < 0 || !lines.endsWith('\n') || /[^\n\P{Cc}]/u.test(text)) return undefined;
  const signatures = [];
  for (const line of lines.slice(0, -1).split('\n')) {
    const match = /^— ([^ ]+) ([A-Za-z0-9+/]+=*)$/.exec(line);
    const bytes = fromBase64(match?.[2] ?? '');
    if (match === null || bytes === undefined || bytes.length <= 4) return undefined;
    signatures.push({ name: match[1] ?? '', bytes });
  }
  return { text, signatures };
}

/** Ed25519, by WebCrypto: browsers have it since 2025. */
export async function isSigned(text: Uint8Array, signature: Uint8Array, raw: Uint8Array): Promise<boolean> {
  const key = await crypto.subtle.importKey('raw', new Uint8Array(raw), 'Ed25519', false, ['verify']);
  return crypto.subtle.verify('Ed25519', key, new Uint8Array(signature), new Uint8Array(text));
}

/** The root that a leaf and its path make, RFC 9162 section 2.1.3.2; undefined when the path does not fit the place. */
export async function rootOfPath(
  index: number,
  size: number,
  leafHash: Uint8Array,
  path: readonly Uint8Array[],
): Promise<Uint8Array | undefined> {
  if (index >= size) return undefined;
  let [node, last, made] = [index, size - 1, leafHash];
  for (const hash of path) {
    if (last === 0) return undefined;
    if (node % 2 === 1 || node === last) {
      made = await hashNode(hash, made);
      while (node % 2 === 0 && node !== 0) [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
    } else {
      made = await hashNode(made, hash);
    }
    [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  }
  return last === 0 ? made : undefined;
}

/** Whether a log begins with a smaller one, RFC 9162 section 2.1.4.2. */
export async function isBeginning(
  from: { readonly size: number; readonly root: Uint8Array },
  to: { readonly size: number; readonly root: Uint8Array },
  path: readonly Uint8Array[],
): Promise<boolean> {
  if (from.size > to.size) return false;
  if (from.size === to.size) return path.length === 0 && isSame(from.root, to.root);
  if (from.size === 0) return path.length === 0;
  let [node, last] = [from.size - 1, to.size - 1];
  while (node % 2 === 1) [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  const [first, ...rest] = node === 0 ? [from.root, ...path] : path;
  if (first === undefined) return false;
  let [madeFrom, madeTo] = [first, first];
  for (const hash of rest) {
    if (last === 0) return false;
    if (node % 2 === 1 || node === last) {
      madeFrom = await hashNode(hash, madeFrom);
      madeTo = await hashNode(hash, madeTo);
      while (node % 2 === 0 && node !== 0) [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
    } else {
      madeTo = await hashNode(madeTo, hash);
    }
    [node, last] = [Math.floor(node / 2), Math.floor(last / 2)];
  }
  return last === 0 && isSame(madeFrom, from.root) && isSame(madeTo, to.root);
}
