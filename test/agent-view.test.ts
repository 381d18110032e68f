import { createHash } from 'node:crypto';
import { beforeEach, describe, expect, test } from 'vitest';
import { createAgentView, type AgentView } from '../src/agent-view.ts';
import { decide } from '../src/authz/decide.ts';
import type { PolicyDocument } from '../src/identity/mesh.ts';
import {
  policySetId,
  type PolicyRevision,
  signRevision,
  withoutReason,
} from '../src/identity/policy-revision.ts';
import type { NodeView } from '../src/identity/view.ts';
import { TrustDomain } from '../src/spiffe/id.ts';
import { maxDocumentBytes } from '../src/yaml.ts';
import { call, noon, policyText } from './authz/mesh.ts';
import { makePolicySigner } from './harness/policy-signer.ts';

const trustDomain = TrustDomain.parse('example.org');
const [signer, stranger] = [makePolicySigner(), makePolicySigner()];

type Change = { readonly by?: typeof signer; readonly tweak?: Partial<PolicyRevision> };

/** A view with these policies of namespace `pay`, signed as revision `number`. */
async function viewOf(
  number: number,
  texts: Readonly<Record<string, string>>,
  change: Change = {},
): Promise<NodeView> {
  const documents = Object.entries(texts).map(([name, source]): PolicyDocument => {
    const sha256 = createHash('sha256').update(source).digest('hex');
    return { key: `pay/${name}`, source, file: `${name}.yaml`, line: 1, sha256, revision: number };
  });
  const policies = new Map(documents.map((one) => [one.key, one]));
  const record = await signRevision(
    change.by ?? signer,
    trustDomain,
    { number, id: policySetId(policies), parent: null, time: new Date(0) },
    { author: { kind: 'system' }, message: '', restores: null },
  );
  const policyRevision = { ...withoutReason(record), ...change.tweak };
  const mesh = { revision: number, entries: new Map(), policies, bans: new Map(), policyRevision };
  const settings = { trustDomain: 'example.org', rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  return { mesh, settings, bundle: { trustDomain }, outgoing: [] } as unknown as NodeView;
}

const mayGet = policyText('rules: [{ to: [{ operation: { methods: [GET] } }] }]', 'get');
const mayAll = policyText('rules: [{}]', 'all');
const unknownField = policyText('rules: [{ to: [{ operation: { methodz: [GET] } }] }]', 'bad');
const tooLarge = `${mayAll}${'# more\n'.repeat(maxDocumentBytes / 7 + 1)}`;

let agent: AgentView;
beforeEach(async () => {
  agent = createAgentView();
  agent.take(await viewOf(5, { get: mayGet }));
});

const verdicts = () =>
  ['GET', 'PUT'].map((method) => {
    const snapshot = agent.holder()?.current().snapshot;
    return snapshot === undefined ? 'none' : decide(snapshot, call({ method }), noon).verdict;
  });

describe('a view that an agent cannot take', () => {
  test.each<[string, string, string | undefined, () => Promise<NodeView>]>([
    [
      'a field that it does not know',
      'policy_invalid',
      'document_field_unknown',
      () => viewOf(6, { bad: unknownField }),
    ],
    [
      'a good policy beside the bad one',
      'policy_invalid',
      'document_field_unknown',
      () => viewOf(6, { all: mayAll, bad: unknownField }),
    ],
    ['a policy of over 1 MiB', 'policy_invalid', 'document_too_large', () => viewOf(6, { all: tooLarge })],
    ['a text that is no YAML', 'policy_invalid', 'document_syntax', () => viewOf(6, { all: '\0' })],
    [
      'a text that is no policy',
      'policy_invalid',
      'document_kind_unknown',
      () => viewOf(6, { all: 'apiVersion: v1\nkind: Pod\n' }),
    ],
    ['a text that is empty', 'store_corrupt', undefined, () => viewOf(6, { all: '' })],
    [
      'two policies of one name',
      'policy_invalid',
      undefined,
      () => viewOf(6, { all: mayAll, other: mayAll }),
    ],
    ['an earlier revision', 'policy_replayed', undefined, () => viewOf(4, { all: mayAll })],
    ['others under the same number', 'policy_replayed', undefined, () => viewOf(5, { all: mayAll })],
    [
      'what somebody else signed',
      'policy_revision_invalid',
      undefined,
      () => viewOf(6, { all: mayAll }, { by: stranger }),
    ],
    [
      'what nobody signed',
      'policy_revision_invalid',
      undefined,
      () => viewOf(6, { all: mayAll }, { tweak: { number: 7 } }),
    ],
  ])('because of %s leaves the last good one in force, whole', async (_, code, cause, make) => {
    const [holder, taken] = [agent.holder(), agent.taken()];
    const current = holder?.current();
    const view = await make();
    let heard = 0;
    holder?.onChange(() => (heard += 1));
    expect(() => agent.take(view)).toThrow(
      expect.objectContaining({
        code,
        ...(cause === undefined ? {} : { cause: expect.objectContaining({ code: cause }) as Error }),
      }) as Error,
    );
    expect([agent.holder(), agent.taken(), heard]).toEqual([holder, taken, 0]);
    expect(agent.holder()?.current()).toBe(current);
    expect(verdicts()).toEqual(['allow', 'deny']);
    // It does not count as seen: what mends it may come under the same number.
    agent.take(await viewOf(6, { all: mayAll }));
    expect(verdicts()).toEqual(['allow', 'allow']);
  });

  test('because it is the first one leaves it without any', async () => {
    const fresh = createAgentView();
    const view = await viewOf(1, { all: mayAll, bad: unknownField });
    expect(() => fresh.take(view)).toThrow(expect.objectContaining({ code: 'policy_invalid' }) as Error);
    expect([fresh.holder(), fresh.taken()]).toEqual([undefined, undefined]);
  });
});
