import { hash } from 'node:crypto';
import { canonicalJson } from '../audit/canonical-json.ts';
import type { IssuanceEvent } from '../audit/event.ts';
import { leafHash } from '../audit/leaf.ts';
import type { NoteKey } from '../audit/note.ts';
import { parseTlogProof, verifyTlogProof } from '../audit/tlog-proof.ts';
import { MeshError, quote } from '../errors.ts';
import { readCertificate } from '../spiffe/certificate.ts';
import { checkLeafCertificate } from '../spiffe/svid.ts';

/** That the issuance of a certificate is an entry of a log. */
export type ProvenIssuance = {
  /** The name of the log. */
  readonly origin: string;
  readonly index: number;
  /** Of the log when it was proven, and its root, 32 bytes. */
  readonly size: number;
  readonly root: Uint8Array;
  /** The entry, canonical JSON. */
  readonly entry: string;
};

/**
 * Proves that a log has the issuance of this very certificate: that of its serial, SPIFFE ID and public key, and of the
 * bytes that were signed.
 * @param proof a `.tlog-proof`
 * @param certificate DER, the leaf
 * @param entry the exact bytes of the entry; default: those that the proof holds
 * @throws MeshError `audit_note_invalid`, `audit_signature_invalid`, `audit_proof_invalid`; `der_invalid` and
 *   `svid_invalid` for what is no X509-SVID
 */
export function verifyIssuanceProof(
  proof: string,
  certificate: Uint8Array,
  key: NoteKey,
  entry?: Uint8Array,
): ProvenIssuance {
  const parsed = parseTlogProof(proof);
  const leaf = entry ?? parsed.extra;
  if (leaf === null) {
    throw new MeshError('audit_note_invalid', 'the proof does not hold the entry', {
      fix: 'ask for the proof with the entry in it',
    });
  }
  const { origin, size, root } = verifyTlogProof(parsed, leafHash(leaf), key);
  const { text, said } = readEntry(leaf);
  for (const [name, found] of factsOf(certificate)) {
    if (said[name] !== found) throw refuse(`is of another certificate: ${name} differs`);
  }
  return { origin, index: parsed.index, size, root, entry: text };
}

/** What an entry and its certificate have in common. */
function factsOf(der: Uint8Array): readonly (readonly [keyof IssuanceEvent, string])[] {
  const certificate = readCertificate(der);
  const { id, serial, spkiSha256, notBefore, notAfter } = checkLeafCertificate(certificate);
  return [
    ['spiffeId', id.text],
    ['serial', serial],
    ['spkiSha256', spkiSha256],
    ['notBefore', notBefore.toISOString()],
    ['notAfter', notAfter.toISOString()],
    // Names the rest: extensions, DNS names, the CA.
    ['tbsSha256', hash('sha256', certificate.tbs, 'hex')],
  ];
}

function readEntry(leaf: Uint8Array): {
  readonly text: string;
  readonly said: Readonly<Record<string, unknown>>;
} {
  let text: string;
  let entry: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(leaf);
    entry = JSON.parse(text);
    // INVARIANT: of two members with one name nobody is told the first and somebody else the second.
    if (canonicalJson(entry) !== text) throw refuse('is not canonical JSON');
  } catch (cause) {
    throw cause instanceof MeshError ? cause : refuse('cannot be read', cause);
  }
  const { type, v } = (entry ?? {}) as { readonly type?: unknown; readonly v?: unknown };
  if (type !== 'issuance' || v !== 1) throw refuse(`is no issuance but ${quote(String(type))}`);
  return { text, said: entry as Readonly<Record<string, unknown>> };
}

function refuse(why: string, cause?: unknown): MeshError {
  return new MeshError('audit_proof_invalid', `the entry that is proven ${why}`, {
    fix: 'take the proof that came with this certificate, or find its entry with countersign audit list --serial',
    cause,
  });
}
