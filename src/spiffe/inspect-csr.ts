import { createHash } from 'node:crypto';
import { MeshError, publicError } from '../errors.ts';
import { DerReader, derTag } from './der.ts';
import { type AltNames, extensionOid, readAltNames } from './extensions.ts';
import { describeKey, describeSignature } from './inspect-algorithms.ts';
import { whyUnsigned } from './inspect-chain.ts';
import { checkIdText } from './inspect-id.ts';
import { describeName } from './inspect-name.ts';
import { collectFindings, type Findings, type Inspection } from './inspect-rules.ts';

/** What a certificate request says. The authority takes only the key from it; the rest are wishes. */
export type CsrFacts = {
  readonly subject: string;
  readonly key: string;
  readonly signature: string;
  /** The first URI name asked for. */
  readonly spiffeId: string | null;
  readonly uris: readonly string[];
  readonly dnsNames: readonly string[];
  readonly otherNames: number;
  /** SHA-256 of the SubjectPublicKeyInfo, lower-case hex. */
  readonly spkiSha256: string;
  /** SHA-256 of the request, lower-case hex. */
  readonly sha256: string;
};

/**
 * Inspects a PKCS #10 certificate request: its outline ends the reading, everything within is noted.
 * @param der at most 1 MiB
 * @throws MeshError `der_invalid` when its outline cannot be read
 * @see RFC 2986 section 4
 */
export function inspectCsr(der: Uint8Array): Inspection<CsrFacts> {
  const findings = collectFindings();
  const file = DerReader.over(der);
  const request = file.enter(derTag.sequence);
  file.finish();
  const info = request.element(derTag.sequence);
  const algorithm = request.element(derTag.sequence);
  const { unusedBits, octets: signature } = request.bitString();
  request.finish();
  const fields = DerReader.over(info).enter(derTag.sequence);
  const version = fields.integer();
  const subject = fields.element(derTag.sequence);
  const spki = fields.element(derTag.sequence);
  const names =
    fields.peek() === attributesTag ? readNames(fields.enter(attributesTag), findings) : undefined;
  fields.finish();
  if (version.length !== 1 || version[0] !== 0) findings.add('rfc2986-4.1-version', 'the version is not 0');
  const why =
    unusedBits === 0
      ? whyUnsigned(info, algorithm, signature, spki)
      : 'the signature is not a whole number of octets';
  if (why !== undefined) findings.add('rfc2986-4.2-proof-of-possession', why);
  const uris = names?.uris ?? [];
  if (uris.length > 1) findings.add('x509-svid-2-one-uri-san', `the request has ${uris.length} URI names`);
  uris.slice(0, maxJudgedUris).forEach((uri, i) => {
    checkIdText(uri, uris.length === 1 ? findings : findings.of(`URI name ${i + 1}`));
  });
  return {
    facts: {
      subject: describeName(subject),
      key: describeKey(spki).text,
      signature: describeSignature(algorithm).text,
      spiffeId: uris[0] ?? null,
      uris,
      dnsNames: names?.dnsNames ?? [],
      otherNames: names?.others ?? 0,
      spkiSha256: createHash('sha256').update(spki).digest('hex'),
      sha256: createHash('sha256').update(der).digest('hex'),
    },
    broken: findings.list(),
  };
}

/** The names that the attribute extensionRequest asks for. @see RFC 2985 section 5.4.2 */
function readNames(attributes: DerReader, findings: Findings): AltNames | undefined {
  try {
    let names: AltNames | undefined;
    while (attributes.peek() !== undefined) {
      const attribute = attributes.enter(derTag.sequence);
      const oid = attribute.oid();
      const values = attribute.enter(derTag.set);
      attribute.finish();
      if (oid !== extensionRequestOid) continue;
      const list = values.enter(derTag.sequence);
      values.finish();
      while (list.peek() !== undefined) {
        const extension = list.enter(derTag.sequence);
        const isNames = extension.oid() === extensionOid.subjectAltName;
        if (extension.peek() === derTag.boolean) extension.boolean();
        const value = extension.content(derTag.octetString);
        extension.finish();
        if (isNames) names = readAltNames(value);
      }
    }
    return names;
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    findings.of('attributes').add('rfc5280-4.2-extension', publicError(error).message);
    return undefined;
  }
}

const attributesTag = 0xa0;
const extensionRequestOid = '1.2.840.113549.1.9.14';
const maxJudgedUris = 8;
