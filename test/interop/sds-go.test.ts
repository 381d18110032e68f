import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { WorkloadCredentials } from '../../src/identity/credentials.ts';
import { createAuthority, credentialsOf, type TestAuthority } from '../sds/certificates.ts';
import { createSource, type RunningSds, startSds } from '../sds/harness.ts';
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

  test('each malformed sequence has its one answer', { timeout: 60_000 }, async () => {
    sds = await startSds(createSource(() => credentials).watch);
    const { output } = await runClient(client, ['-addr', sds.path, '-raw', 'sotw', '-raw-wait', '250ms']);
    expect(summaryOf(output)).toEqual(new Map(cases));
  });

  test('Delta and Fetch are not there yet', async () => {
    sds = await startSds(createSource(() => credentials).watch);
    for (const mode of ['-delta', '-fetch']) {
      const { code, output } = await runClient(client, ['-addr', sds.path, mode]);
      expect([code, output.includes('Unimplemented')]).toEqual([1, true]);
    }
  });

  test('a thousand streams get a rotation each, once', { timeout: 60_000 }, async () => {
    const source = createSource(() => credentials);
    sds = await startSds(source.watch);
    const renewed = credentialsOf(authority, [await authority.issue('spiffe://example.org/web')]);
    const running = runClient(client, [
      '-addr',
      sds.path,
      '-conns',
      '10',
      '-streams',
      '100',
      '-hold',
      '8s',
      '-q',
      '-parse',
    ]);
    while (sds.acknowledged.length < 2_000) await new Promise((resolve) => setTimeout(resolve, 20));
    source.publish(() => renewed);
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
