import { isDeepStrictEqual } from 'node:util';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import { eventually } from '../harness/eventually.ts';
import { createAuthority, credentialsOf, type TestAuthority } from '../xds/certificates.ts';
import { createSource, type RunningSds, startSds } from '../xds/harness.ts';
import { buildGoClient, goIsHere, runClient } from './go-client.ts';

let client: string;
let authority: TestAuthority;
let credentials: WorkloadCredentials;
let sds: RunningSds;

/** What a stream answers, as the client's summary says it; steps are joined by `; `. */
const one = 'RESPONSE resources=1';
const two = 'RESPONSE resources=2';
const cases: readonly [name: string, summary: string][] = [
  ['good', `request -> ${two}; ack -> nothing; stream open`],
  ['stale-nonce', `request -> ${two}; stale ack -> nothing; stream open`],
  ['stale-nonce-new-names', `request -> ${two}; ack -> nothing; stale, one name -> nothing; stream open`],
  ['dup-ack', `request -> ${two}; ack -> nothing; ack -> nothing; stream open`],
  ['nack', `request -> ${two}; nack -> nothing; stream open`],
  ['nack-then-ack', `request -> ${two}; nack -> nothing; ack -> nothing; stream open`],
  ['wrong-type', 'cds type -> END InvalidArgument; stream ended'],
  ['wrong-type-later', `request -> ${two}; cds type -> END InvalidArgument; stream ended`],
  ['empty-type', `no type -> ${two}; stream open`],
  ['v2-type', 'v2 -> END InvalidArgument; stream ended'],
  ['unknown-name', 'nosuch -> nothing; stream open'],
  ['unknown-among-known', `mixed -> ${two}; stream open`],
  ['foreign-id', 'foreign -> nothing; stream open'],
  ['name-traversal', 'odd -> nothing; stream open'],
  ['dup-names', `dup -> ${two}; stream open`],
  ['empty-names', 'none -> nothing; stream open'],
  ['unsubscribe', `request -> ${two}; empty -> nothing; stream open`],
  ['change-names', `one -> ${one}; all -> ${two}; stream open`],
  ['no-node', `no node -> ${two}; stream open`],
  ['node-changes', `request -> ${two}; other node -> nothing; stream open`],
  ['nonce-on-first', `nonce -> ${two}; stream open`],
  ['version-on-first', `version -> ${two}; stream open`],
  ['error-on-first', `error -> ${two}; stream open`],
  ['many-names', 'many -> END ResourceExhausted; stream ended'],
  ['long-name', 'long -> END ResourceExhausted; stream ended'],
  ['long-nack', `request -> ${two}; nack -> END ResourceExhausted; stream ended`],
  ['huge', 'huge -> END ResourceExhausted; stream ended'],
  ['garbage', 'garbage -> END Internal; stream ended'],
  ['garbage-later', `request -> ${two}; garbage -> END Internal; stream ended`],
  ['bad-utf8', 'bad utf8 -> nothing; stream open'],
  ['unknown-fields', `unknown -> ${two}; stream open`],
  ['empty-message', 'empty -> nothing; stream open'],
  ['half-close', `request -> ${two}; close -> END OK; stream ended`],
  ['close-at-once', 'close -> END OK; stream ended'],
  ['flood', `flood -> ${two}; stream open`],
];

/** The same for DeltaSecrets. A name that is not there is left unanswered: see docs/sds.md. */
const deltaCases: readonly [name: string, summary: string][] = [
  ['d-good', `subscribe -> ${two}; ack -> nothing; stream open`],
  ['d-stale-nonce', `subscribe -> ${two}; stale -> nothing; stream open`],
  ['d-nack', `subscribe -> ${two}; nack -> ${one}; stream open`],
  ['d-wrong-type', 'cds -> END InvalidArgument; stream ended'],
  ['d-unknown-name', 'nosuch -> nothing; stream open'],
  ['d-unsubscribe', `subscribe -> ${two}; unsub -> nothing; stream open`],
  ['d-unsubscribe-unknown', `subscribe -> ${two}; unsub -> nothing; stream open`],
  ['d-resubscribe', `subscribe -> ${two}; ack -> nothing; again -> ${two}; stream open`],
  ['d-initial-versions', `init -> ${two}; stream open`],
  ['d-sub-and-unsub', 'both -> nothing; stream open'],
  ['d-garbage', 'garbage -> END Internal; stream ended'],
];

describe.skipIf(!goIsHere())("go-control-plane's types over grpc-go", () => {
  beforeAll(async () => {
    client = await buildGoClient('sdsclient');
    authority = await createAuthority('example.org');
    credentials = credentialsOf(authority, [await authority.issue('spiffe://example.org/web')]);
  }, 600_000);

  afterEach(() => sds.close());

  test('every kind of secret is parsed by Go, key and certificate fit', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const names = 'default,ROOTCA,ALL,spiffe://example.org,spiffe://example.org/web';
    const { code, output } = await runClient(client, ['-addr', sds.path, '-names', names]);
    expect(output).toContain('resources=5');
    expect(output).toContain('tls_certificate "default" chain=2 uris=[spiffe://example.org/web]');
    expect(output).toContain(
      'validation_context "ROOTCA" cas=0 sans=0 typed_sans=0 custom=envoy.tls.cert_validator.spiffe',
    );
    expect([code, /bad=(\d+) errors=(\d+)/.exec(output)?.slice(1)]).toEqual([0, ['0', '0']]);
  });

  test('a plain CA is parsed by Go', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const meta = 'disable_spiffe_cert_validation=true';
    const { output } = await runClient(client, ['-addr', sds.path, '-names', 'ROOTCA', '-node-meta', meta]);
    expect(output).toContain('validation_context "ROOTCA" cas=1');
  });

  test.each([
    ['sotw', cases],
    ['delta', deltaCases],
  ] as const)(
    'each malformed sequence has its one answer: %s',
    { timeout: 300_000 },
    async (form, answers) => {
      sds = await startSds(createSource(() => credentials).watch);
      const seen = async (wait: string) =>
        summaryOf((await runClient(client, ['-addr', sds.path, '-raw', form, '-raw-wait', wait])).output);
      // On a busy machine an answer may come later than that; a wrong one stays wrong however long we wait.
      const hasty = await seen('250ms');
      const expected = new Map(answers);
      expect(isDeepStrictEqual(hasty, expected) ? hasty : await seen('3s')).toEqual(expected);
    },
  );

  test.each(['-delta', '-fetch'])('with %s every kind of secret is parsed by Go', async (form) => {
    sds = await startSds(createSource(() => credentials).watch);
    const names = 'default,ROOTCA,ALL,spiffe://example.org,spiffe://example.org/web';
    const { code, output } = await runClient(client, ['-addr', sds.path, form, '-names', names]);
    expect(output).toContain('tls_certificate "default" chain=2 uris=[spiffe://example.org/web]');
    expect(output).toContain('validation_context "ALL" cas=0');
    expect([code, /bad=(\d+) errors=(\d+)/.exec(output)?.slice(1)]).toEqual([0, ['0', '0']]);
  });

  test('a thousand streams get a rotation each, once', { timeout: 180_000 }, async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const renewed = credentialsOf(authority, [await authority.issue('spiffe://example.org/web')]);
    const args = ['-addr', sds.path, '-conns', '10', '-streams', '100', '-hold', '140s', '-q', '-parse'];
    const enough = Promise.withResolvers<void>();
    const running = runClient(client, args, enough.promise);
    const patient = { withinMs: 60_000, everyMs: 20 };
    // Each stream has two secrets to confirm, and again of the rotation.
    await eventually('the first answers', () => sds.acknowledged.length >= 2_000, patient);
    source.publish(() => renewed);
    await eventually('the rotation', () => sds.acknowledged.length >= 4_000, patient);
    // Time for a second push, were there one.
    setTimeout(enough.resolve, 1_000);
    const { code, output } = await running;
    expect(output).toMatch(
      /first_responses=1000 .* live_at_end=1000 .* pushes=1000 acks=2000 nacks=0 bad=0 errors=0/,
    );
    expect([code, sds.refusals, sds.log]).toEqual([0, [], []]);
  });
});

/** The summary of `-raw` by case, without versions, nonces and messages. */
function summaryOf(output: string): Map<string, string> {
  const lines = output.slice(output.indexOf('--- summary')).split('\n').slice(1);
  return new Map(
    lines.flatMap((line) => {
      const [, name, rest] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
      if (name === undefined || rest === undefined) return [];
      const short = rest
        .replace(/RESPONSE\(version=\S+ nonce=\S+ (resources=\d+) removed=\[\]\)/g, 'RESPONSE $1')
        .replace(/END\((\w+)(?::[^;]*)?\)(?=;)/g, 'END $1');
      return [[name, short] as const];
    }),
  );
}
