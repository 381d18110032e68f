/**
 * Decodes base64 or base64url, of which one byte string has exactly one text: undefined for padding that does not belong,
 * stray bits, spaces, line breaks and letters of the other alphabet.
 * @see RFC 4648 sections 3.5, 4 and 5
 */
export function decodeBase64(text: string, alphabet: 'base64' | 'base64url'): Uint8Array | undefined {
  // INVARIANT: what is decoded encodes to the same text again.
  const bytes = Buffer.from(text, alphabet);
  return bytes.toString(alphabet) === text ? new Uint8Array(bytes) : undefined;
}
