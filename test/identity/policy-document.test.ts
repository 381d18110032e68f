import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createAdministration } from '../../src/identity/administration.ts';
import { compileStoredMesh, createMeshHolder } from '../../src/identity/current-mesh.ts';
import { TrustDomain } from '../../src/spiffe/id.ts';
import { makePolicySigner, noHistory } from '../harness/policy-signer.ts';

const page = readFileSync(new URL('../../docs/policy.md', import.meta.url), 'utf8');
const examples = [...page.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, text = '']) => text);
/** Before the first time that the page names ends, and when the grant in it may be given. */
const clock = { now: () => new Date('2026-11-21T12:00:00Z'), sleep: async () => {} };

test('every document of docs/policy.md can be applied, one after the other', async () => {
  const trustDomain = TrustDomain.parse('example.org');
  const settings = { trustDomain, rootNamespace: 'istio-system', ttlSeconds: 3_600 };
  const empty = { revision: 0, entries: new Map(), policies: new Map(), bans: new Map() };
  const mesh = createAdministration({
    ...{ settings, clock, history: noHistory, signer: makePolicySigner() },
    holder: createMeshHolder(compileStoredMesh(empty, settings)),
    commit: async () => {},
    latestExpiry: async () => null,
    latestExpiries: async () => [],
  });
  expect(examples.length).toBeGreaterThan(5);
  for (const [i, text] of examples.entries()) {
    const files = [{ file: `example-${i + 1}.yaml`, text }];
    const { changes, warnings } = await mesh.apply(files, { kind: 'system' }, { dryRun: false });
    expect(changes.length).toBeGreaterThan(0);
    // Only the grant is loud.
    expect(warnings.filter((warning) => !warning.includes('break-glass'))).toEqual([]);
  }
});
