import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { PolicyMode } from '../../src/authz/policy-mode.ts';
import type { PolicyDocument } from '../../src/identity/mesh.ts';
import {
  policyModeOf,
  policySetId,
  type PolicyRevision,
  type PolicySigner,
  signRevision,
  withoutReason,
} from '../../src/identity/policy-revision.ts';
import type { NodeView } from '../../src/identity/view.ts';
import { createPolicyGuard } from '../../src/node/policy-guard.ts';
import { policyRevisionFromWire, policyRevisionToWire } from '../../src/node/policy-wire.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { PolicyRevision as WireRevision } from '../../src/wire/node.ts';
import { makePolicySigner } from '../harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('mesh.test');
const [signer, other] = [makePolicySigner(), makePolicySigner()];
const documentOf = (key: string, source: string): PolicyDocument => ({
  key,
  source,
  file: 'p.yaml',
  line: 1,
  sha256: createHash('sha256').update(source).digest('hex'),
  revision: 1,
});
const one = documentOf('shop/a', 'one');
const two = documentOf('shop/a', 'two');
const mapOf = (...documents: PolicyDocument[]) => new Map(documents.map((each) => [each.key, each]));

type Change = {
  readonly number?: number;
  readonly documents?: readonly PolicyDocument[];
  readonly signed?: readonly PolicyDocument[];
  readonly mode?: PolicyMode;
  readonly by?: PolicySigner;
  readonly domain?: TrustDomain;
  readonly tweak?: Partial<PolicyRevision>;
};

/** A view whose policies are signed as they are, unless told otherwise. */
async function viewOf({ number = 5, documents = [one], signed = documents, by = signer, ...more }: Change) {
  const record = await signRevision(
    by,
    more.domain ?? trustDomain,
    { number, id: policySetId(mapOf(...signed), more.mode), parent: null, time: new Date(0) },
    { author: { kind: 'system' }, message: '', restores: null },
  );
  const policyRevision = { ...withoutReason(record), ...more.tweak };
  return viewWith({ policies: mapOf(...documents), policyRevision });
}

function viewWith(mesh: Partial<NodeView['mesh']>): NodeView {
  const whole = { revision: 1, entries: new Map(), policies: new Map(), bans: new Map(), ...mesh };
  return { mesh: whole, bundle: { trustDomain } } as unknown as NodeView;
}

async function guardAt(change: Change) {
  const guard = createPolicyGuard();
  const view = await viewOf(change);
  guard.demand(view);
  guard.enforce(view);
  return guard;
}

const nothing = Promise.resolve(viewWith({}));

describe('after revision 5', () => {
  test.each<[string, () => Promise<NodeView>]>([
    ['the same again', () => viewOf({})],
    ['the next', () => viewOf({ number: 6, documents: [two] })],
    ['a much later one', () => viewOf({ number: 6_000 })],
    ['a later one without policies', () => viewOf({ number: 6, documents: [] })],
    ['a later one in Istio mode', () => viewOf({ number: 6, mode: 'istio' })],
  ])('is taken: %s', async (_, view) => {
    const guard = await guardAt({});
    expect(() => guard.demand).not.toThrow();
    guard.demand(await view());
  });

  test.each<[string, string, () => Promise<NodeView>]>([
    ['the one before', 'policy_replayed', () => viewOf({ number: 4 })],
    ['the first, with the same policies', 'policy_replayed', () => viewOf({ number: 1 })],
    ['others under the same number', 'policy_replayed', () => viewOf({ documents: [two] })],
    ['none under the same number', 'policy_replayed', () => viewOf({ documents: [] })],
    ['another mode under the same number', 'policy_replayed', () => viewOf({ mode: 'istio' })],
    [
      'a mode that was not signed',
      'policy_revision_invalid',
      () => viewOf({ number: 6, tweak: { id: policySetId(mapOf(one), 'istio') } }),
    ],
    ['no revision at all', 'policy_replayed', () => nothing],
    ['a later one of another key', 'policy_revision_invalid', () => viewOf({ number: 6, by: other })],
    [
      'a later one that names our key, and was signed by another',
      'policy_revision_invalid',
      () => viewOf({ number: 6, by: other, tweak: { publicKey: signer.publicKey } }),
    ],
    [
      'an old one with a new number',
      'policy_revision_invalid',
      () => viewOf({ number: 4, tweak: { number: 6 } }),
    ],
    [
      'one of another trust domain',
      'policy_revision_invalid',
      () => viewOf({ number: 6, domain: TrustDomain.parse('other.test') }),
    ],
    ['a policy more', 'policy_revision_invalid', () => viewOf({ number: 6, documents: [one], signed: [] })],
    ['a policy less', 'policy_revision_invalid', () => viewOf({ number: 6, documents: [], signed: [one] })],
    ['another text', 'policy_revision_invalid', () => viewOf({ number: 6, documents: [two], signed: [one] })],
    [
      'another text that says it is the same',
      'policy_revision_invalid',
      () => viewOf({ number: 6, documents: [{ ...two, sha256: one.sha256 }], signed: [one] }),
    ],
    [
      'the same text under another name',
      'policy_revision_invalid',
      () => viewOf({ number: 6, documents: [{ ...one, key: 'shop/b' }], signed: [one] }),
    ],
  ])('is refused: %s', async (_, code, view) => {
    const guard = await guardAt({});
    const sent = await view();
    expect(() => guard.demand(sent)).toThrow(expect.objectContaining({ code }));
    // What was refused leaves no trace.
    guard.demand(await viewOf({ number: 6 }));
  });
});

test('the mode of a view is the one whose name was signed', async () => {
  expect(policyModeOf((await viewOf({})).mesh)).toBe('strict');
  expect(policyModeOf((await viewOf({ mode: 'istio' })).mesh)).toBe('istio');
  expect(policyModeOf((await viewOf({ documents: [], mode: 'istio' })).mesh)).toBe('istio');
  expect(policyModeOf((await nothing).mesh)).toBe('strict');
});

describe('at first', () => {
  test('a server that knows of no revisions is believed, and so is the first that does', async () => {
    const guard = createPolicyGuard();
    const old = await nothing;
    guard.demand(old);
    guard.enforce(old);
    guard.demand(await viewOf({ number: 1, by: other }));
  });

  test.each<[string, Change]>([
    ['policies that were not signed', { documents: [two], signed: [one] }],
    ['a signature of another key', { by: other, tweak: { publicKey: signer.publicKey } }],
    ['no signature', { tweak: { signature: '' } }],
  ])('is refused: %s', async (_, change) => {
    const view = await viewOf(change);
    expect(() => createPolicyGuard().demand(view)).toThrow(
      expect.objectContaining({ code: 'policy_revision_invalid' }),
    );
  });

  test('what was judged and could not be used does not count', async () => {
    const guard = await guardAt({});
    guard.demand(await viewOf({ number: 9 }));
    guard.demand(await viewOf({ number: 6 }));
  });
});

describe('on the wire', () => {
  test('a revision comes as it went', async () => {
    const { policyRevision } = (await viewOf({ tweak: { parent: { number: 4, id: 'ab'.repeat(32) } } })).mesh;
    const bytes = WireRevision.encode(policyRevisionToWire(policyRevision!)).finish();
    expect(policyRevisionFromWire(WireRevision.decode(bytes))).toEqual(policyRevision);
  });

  test.each<[string, Partial<WireRevision>]>([
    ['no number', { number: 0n }],
    ['a number below nothing', { number: -1n }],
    ['a number that is no safe integer', { number: 2n ** 53n }],
    ['a parent that is later', { parentNumber: 5n, parentId: 'ab'.repeat(32) }],
    ['a parent without an id', { parentNumber: 4n }],
    ['no id', { id: '' }],
    ['an id in capitals', { id: 'AB'.repeat(32) }],
    ['no record', { recordSha256: '' }],
    ['a time before 1970', { timeMs: -1n }],
  ])('is refused with %s', async (_, change) => {
    const { policyRevision } = (await viewOf({})).mesh;
    const sent = { ...policyRevisionToWire(policyRevision!), ...change };
    expect(() => policyRevisionFromWire(sent)).toThrow(
      expect.objectContaining({ code: expect.stringMatching(/^(view|message)_invalid$/) }),
    );
  });
});
