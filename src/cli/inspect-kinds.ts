import { maxCsrBytes, readCsr } from '../ca/csr.ts';
import { MeshError, publicError } from '../errors.ts';
import {
  type BundleFileFacts,
  type InspectedBundle,
  inspectCertificateBundle,
  inspectJsonBundle,
  type UsableBundle,
} from '../spiffe/inspect-bundle.ts';
import { readForInspection } from '../spiffe/inspect-certificate.ts';
import { type ChainFacts, inspectChain } from '../spiffe/inspect-chain.ts';
import { type CsrFacts, inspectCsr } from '../spiffe/inspect-csr.ts';
import { type IdFacts, inspectId } from '../spiffe/inspect-id.ts';
import { inspectJwt, type JwtFacts } from '../spiffe/inspect-jwt.ts';
import {
  collectFindings,
  type Finding,
  type Inspection,
  type InspectionRule,
  inspectionRules,
} from '../spiffe/inspect-rules.ts';
import { SpiffeId } from '../spiffe/id.ts';
import { blocksOf, type InspectInput, textOfInput } from './inspect-input.ts';

/** What can be inspected. */
export const inspectKinds = ['id', 'csr', 'svid', 'bundle', 'jwt'] as const;
export type InspectKind = (typeof inspectKinds)[number];

/** The answer of an inspection; its JSON is what `-o json` prints. */
export type InspectReport = {
  /** Whether no rule is broken. */
  readonly ok: boolean;
  readonly broken: readonly Finding[];
} & (
  | { readonly kind: 'id'; readonly facts: IdFacts }
  | { readonly kind: 'csr'; readonly facts: CsrFacts }
  | { readonly kind: 'svid'; readonly facts: ChainFacts }
  | { readonly kind: 'bundle'; readonly facts: BundleFileFacts }
  | { readonly kind: 'jwt'; readonly facts: JwtFacts }
);

/** What an SVID or a token is verified against, and for which moment. */
export type InspectAgainst = {
  /** Without bundles neither trust nor a signature is judged. */
  readonly bundles?: readonly UsableBundle[];
  /** Without it no dates are judged. */
  readonly at?: Date;
};

/**
 * Inspects one input.
 * @throws MeshError `der_invalid`, `input_unreadable`, `input_too_large` when it cannot be read at all
 */
export async function inspectInput(
  kind: InspectKind,
  input: InspectInput,
  against: InspectAgainst = {},
): Promise<InspectReport> {
  switch (kind) {
    case 'id':
      return { kind, ...answer(inspectId(textOfInput(input))) };
    case 'csr':
      return { kind, ...answer(await inspectRequest(input)) };
    case 'svid':
      return { kind, ...answer(inspectSvid(input, against)) };
    case 'bundle': {
      const { facts, broken } = inspectBundle(input);
      return { kind, ...answer({ facts, broken }) };
    }
    case 'jwt':
      return { kind, ...answer(inspectToken(input, against)) };
    default:
      return kind satisfies never;
  }
}

/**
 * Inspects a bundle, in PEM, DER or JSON, and gives what others can be verified with.
 * @throws MeshError `der_invalid`, `input_unreadable`, `input_too_large`
 */
export function inspectBundle(input: InspectInput): InspectedBundle {
  const first = input.bytes.find((octet) => !spaces.has(octet));
  if (first === openBrace || first === openBracket) return inspectJsonBundle(textOfInput(input));
  return inspectCertificateBundle(blocksOf(input, 'CERTIFICATE'));
}

function inspectSvid(input: InspectInput, { bundles, at }: InspectAgainst): Inspection<ChainFacts> {
  const chain = blocksOf(input, 'CERTIFICATE');
  const [leaf] = chain;
  if (leaf === undefined)
    throw new MeshError('der_invalid', 'the input is empty', { fix: 'give a certificate' });
  const { trustDomain } = readForInspection(leaf, collectFindings());
  return inspectChain(chain, {
    ...(bundles === undefined ? {} : { authorities: bundleFor(bundles, trustDomain)?.authorities ?? [] }),
    ...(at === undefined ? {} : { at }),
  });
}

function inspectToken(input: InspectInput, { bundles, at }: InspectAgainst): Inspection<JwtFacts> {
  const token = textOfInput(input);
  const when = at === undefined ? {} : { at };
  const alone = inspectJwt(token, when);
  if (bundles === undefined) return alone;
  const keys = bundleFor(bundles, trustDomainOf(alone.facts.subject))?.jwtKeys ?? [];
  return inspectJwt(token, { ...when, keys });
}

/** The one bundle that may speak for a trust domain. Bundles are never pooled. */
function bundleFor(bundles: readonly UsableBundle[], trustDomain: string | null): UsableBundle | undefined {
  if (trustDomain === null) return undefined;
  const own = bundles.find((bundle) => bundle.trustDomain === trustDomain);
  // A bundle that says of no trust domain that it is its own is of the one that the caller means.
  return own ?? (bundles.length === 1 && bundles[0]?.trustDomain === null ? bundles[0] : undefined);
}

/** What the SPIFFE side reads of a request, and what the authority's own intake says of it. */
async function inspectRequest(input: InspectInput): Promise<Inspection<CsrFacts>> {
  const isNew = Buffer.from(input.bytes.subarray(0, 15)).toString('latin1') === '-----BEGIN NEW ';
  const [der, more] = blocksOf(input, isNew ? 'NEW CERTIFICATE REQUEST' : 'CERTIFICATE REQUEST');
  if (der === undefined || more !== undefined) {
    throw new MeshError('der_invalid', 'the input is not one certificate request', {
      fix: 'give one request',
    });
  }
  const { facts, broken } = inspectCsr(der);
  try {
    readCsr(input.bytes.length > maxCsrBytes ? der : input.bytes);
    return { facts, broken };
  } catch (error) {
    if (!(error instanceof MeshError)) throw error;
    const rule = intakeRules.get(error.code) ?? 'csr-intake';
    if (broken.some((finding) => finding.rule === rule)) return { facts, broken };
    const own = { rule, section: inspectionRules[rule][0], part: '', message: publicError(error).message };
    return { facts, broken: [...broken, own] };
  }
}

function answer<F>({ facts, broken }: Inspection<F>): {
  readonly ok: boolean;
  readonly facts: F;
  readonly broken: readonly Finding[];
} {
  return { ok: broken.length === 0, facts, broken };
}

function trustDomainOf(id: string | null): string | null {
  try {
    return id === null ? null : SpiffeId.parse(id).trustDomain.name;
  } catch {
    return null;
  }
}

const openBrace = 0x7b;
const openBracket = 0x5b;
const spaces: ReadonlySet<number> = new Set([0x09, 0x0a, 0x0d, 0x20]);
const intakeRules: ReadonlyMap<string, InspectionRule> = new Map([
  ['public_key_unsupported', 'csr-key'],
  ['csr_proof_invalid', 'rfc2986-4.2-proof-of-possession'],
]);
