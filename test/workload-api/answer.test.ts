import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { EntitledBundles } from '../../src/identity/bundle-watch.ts';
import type { WorkloadCredentials, X509Svid } from '../../src/identity/credentials.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { writeJwtBundle } from '../../src/spiffe/bundle-document.ts';
import {
  type Answer,
  answerJwtBundles,
  answerX509Bundles,
  answerX509Svid,
  uniqueHints,
} from '../../src/workload-api/answer.ts';
import { createAuthority, credentialsOf, nothingOf, type TestAuthority } from '../xds/certificates.ts';
import { entry } from './entries.ts';

let ours: TestAuthority;
let theirs: TestAuthority;
let web: X509Svid;
let orders: X509Svid;
beforeAll(async () => {
  [ours, theirs] = await Promise.all([createAuthority('example.org'), createAuthority('other.example')]);
  web = await ours.issue('spiffe://example.org/web');
  orders = await ours.issue('spiffe://example.org/orders');
});

const banned = SpiffeId.parse('spiffe://example.org/bad');

/** An answer in one word and what it holds. */
function show(answer: Answer<unknown>): string {
  if (answer.kind === 'deny') return answer.code;
  return answer.kind === 'nothing'
    ? 'nothing'
    : `send ${answer.delivers.map(({ spiffeId }) => spiffeId.split('/').at(-1)).join()}`;
}

describe('certificates', () => {
  type State = () => WorkloadCredentials;
  const none: State = () => nothingOf(ours);
  const one: State = () => credentialsOf(ours, [web]);
  const two: State = () => credentialsOf(ours, [web, orders]);
  const federated: State = () => credentialsOf(ours, [web], [theirs.bundle]);
  const otherBanned: State = () => ({ ...one(), banned: [banned] });
  const defaultBanned: State = () => ({ ...one(), banned: [banned], isDefaultBanned: true });
  const allBanned: State = () => ({ ...none(), banned: [banned], isDefaultBanned: true });
  const noBundle: State = () => ({ ...one(), bundles: new Map([['other.example', theirs.bundle]]) });
  const newBundle: State = () => ({ ...one(), bundles: new Map([['example.org', { ...ours.bundle }]]) });
  const newJwt: State = () => ({
    ...one(),
    jwtBundles: new Map([['example.org', { trustDomain: ours.trustDomain, authorities: [], sequence: 2 }]]),
  });

  test.each<[string, State | undefined, State, string]>([
    ['nobody', undefined, none, 'identity_none'],
    ['one identity', undefined, one, 'send web'],
    ['the same again', one, one, 'nothing'],
    ['one more', one, two, 'send web,orders'],
    ['one less', two, one, 'send web'],
    ['none any more', one, none, 'identity_none'],
    ['a foreign bundle', one, federated, 'send web'],
    ['a foreign bundle less', federated, one, 'send web'],
    ['a bundle of the same size', one, newBundle, 'send web'],
    ['another JWT bundle', one, newJwt, 'nothing'],
    ['another identity is banned', undefined, otherBanned, 'send web'],
    ['the default one is banned', one, defaultBanned, 'identity_banned'],
    ['all are banned', one, allBanned, 'identity_banned'],
    ['our own bundle is not there', undefined, noBundle, 'nothing'],
  ])('%s', (_, before, now, expected) => {
    expect(show(answerX509Svid(before?.(), now()))).toBe(expected);
  });

  test('hold chain, key and bundle as DER, ours apart from foreign ones', () => {
    const answer = answerX509Svid(undefined, federated());
    if (answer.kind !== 'send') throw new Error(answer.kind);
    const [svid] = answer.response.svids;
    expect(svid).toEqual({
      spiffeId: 'spiffe://example.org/web',
      x509Svid: Buffer.concat([...web.certificates]),
      x509SvidKey: Buffer.from(web.privateKey),
      bundle: Buffer.concat([...ours.bundle.x509Authorities]),
      hint: '',
    });
    expect(answer.response.federatedBundles).toEqual({
      'spiffe://other.example': Buffer.concat([...theirs.bundle.x509Authorities]),
    });
    expect(answer.delivers).toMatchObject([{ content: { serial: web.serial, bundleSequence: 1 } }]);
  });
});

describe('bundles', () => {
  const state = (changes: Partial<EntitledBundles> = {}): EntitledBundles => ({
    entitlement: { entries: [entry('/web')], banned: [], isDefaultBanned: false },
    bundles: new Map([['example.org', ours.bundle]]),
    jwtBundles: new Map([['example.org', { trustDomain: ours.trustDomain, authorities: [], sequence: 1 }]]),
    ...changes,
  });
  const nobody = { entries: [], banned: [], isDefaultBanned: false };

  test.each<[string, Partial<EntitledBundles>, string, string]>([
    ['nobody', { entitlement: nobody }, 'identity_none', 'identity_none'],
    [
      'all banned',
      { entitlement: { ...nobody, banned: [banned], isDefaultBanned: true } },
      'identity_banned',
      'identity_banned',
    ],
    [
      'the default banned, another left',
      { entitlement: { entries: [entry('/web')], banned: [banned], isDefaultBanned: true } },
      'nothing',
      'nothing',
    ],
    ['other entries', { entitlement: { ...nobody, entries: [entry('/b')] } }, 'nothing', 'nothing'],
    ['no X.509 bundle any more', { bundles: new Map() }, 'send ', 'nothing'],
    ['no JWT bundle any more', { jwtBundles: new Map() }, 'nothing', 'send '],
  ])('%s', (_, changes, x509, jwt) => {
    const before = state();
    const now = { ...before, ...changes };
    expect(show(answerX509Bundles(before, now))).toBe(x509);
    expect(show(answerJwtBundles(writeJwtBundle)(before, now))).toBe(jwt);
  });

  test('are keyed by the ID of their trust domain', () => {
    const answers = [
      answerX509Bundles(undefined, state()),
      answerJwtBundles(writeJwtBundle)(undefined, state()),
    ];
    expect(answers).toMatchObject([
      { response: { bundles: { 'spiffe://example.org': Buffer.concat([...ours.bundle.x509Authorities]) } } },
      { response: { bundles: { 'spiffe://example.org': Buffer.from('{"keys":[]}') } } },
    ]);
  });
});

test('no two hints of a response are the same, and the first keeps its own', () => {
  fc.assert(
    fc.property(fc.array(fc.constantFrom('', 'a', 'b', '__proto__')), (hints) => {
      const hint = uniqueHints();
      const made = hints.map((one) => hint(one));
      const said = made.filter((one) => one !== '');
      expect(new Set(said).size).toBe(said.length);
      for (const [index, one] of made.entries()) expect(['', hints[index]]).toContain(one);
      for (const one of new Set(hints)) expect(made[hints.indexOf(one)]).toBe(one);
    }),
  );
});

// Whatever sequence of states a caller goes through, what it was sent last is what it may have now.
test('a stream never lags behind, never repeats itself, and is silent after a refusal', () => {
  const states = (): fc.Arbitrary<WorkloadCredentials> =>
    fc
      .record({
        svids: fc.subarray([web, orders]),
        foreign: fc.boolean(),
        isDefaultBanned: fc.boolean(),
        jwt: fc.nat(3),
      })
      .map(({ svids, foreign, isDefaultBanned }) => ({
        ...credentialsOf(ours, svids, foreign ? [theirs.bundle] : []),
        banned: isDefaultBanned ? [banned] : [],
        isDefaultBanned,
      }));
  fc.assert(
    fc.property(fc.array(states(), { maxLength: 20 }), (all) => {
      let before: WorkloadCredentials | undefined;
      let sent = '';
      for (const now of all) {
        const answer = answerX509Svid(before, now);
        before = now;
        const mayHaveNone = now.isDefaultBanned || now.svids.length === 0;
        expect(answer.kind === 'deny').toBe(mayHaveNone);
        if (answer.kind === 'deny') return;
        if (answer.kind === 'send') {
          const next = JSON.stringify(answer.response);
          expect(next).not.toBe(sent);
          sent = next;
        }
        const held = JSON.parse(sent) as { svids: { spiffeId: string }[]; federatedBundles: object };
        expect(held.svids.map(({ spiffeId }) => spiffeId)).toEqual(now.svids.map(({ id }) => id.text));
        expect(Object.keys(held.federatedBundles)).toHaveLength(now.bundles.size - 1);
      }
    }),
  );
});
