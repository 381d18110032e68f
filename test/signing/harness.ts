import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { credentials, type ServiceError } from '@grpc/grpc-js';
import { createUnixAttestor } from '../../src/attest/unix.ts';
import { systemClock } from '../../src/clock.ts';
import { startGrpcListener } from '../../src/grpc/listener.ts';
import type { RegistrationEntry } from '../../src/identity/entry.ts';
import { indexBans } from '../../src/identity/ban-list.ts';
import { createIssuer } from '../../src/identity/issuer.ts';
import { indexEntries } from '../../src/identity/registry.ts';
import { parseSelector } from '../../src/identity/selector.ts';
import { createRefusals } from '../../src/identity/refusals.ts';
import { createSigningService, type SigningOptions } from '../../src/signing/service.ts';
import { SpiffeId } from '../../src/spiffe/id.ts';
import { openStore, type Store } from '../../src/store/store.ts';
import { SigningClient, type SignX509Request, type SignX509Response } from '../../src/wire/sign.ts';
import { makeTestAuthority, type TestAuthority } from '../ca/test-authority.ts';
import { eventually } from '../harness/eventually.ts';
import type { Scope } from '../harness/scope.ts';
import { makeTempDir } from '../harness/temp.ts';

/** The door on a real socket, with the real attestor, a real store and a real authority behind it. */
export type RunningSigning = {
  readonly ca: TestAuthority;
  readonly store: Store;
  readonly failures: unknown[];
  /** Changes who is entitled to what. */
  readonly register: (entries: readonly RegistrationEntry[]) => void;
  readonly sign: (request: Partial<SignX509Request>, timeoutMs?: number) => Promise<SignX509Response>;
  /** The code of ours that a refused call ends with, and its gRPC status. */
  readonly refusal: (request: Partial<SignX509Request>) => Promise<[code: string, status: number]>;
  readonly events: (type: 'issuance' | 'refusal') => Promise<readonly Record<string, unknown>[]>;
  /** The recorded refusals, as soon as there is one: nobody waits for them to be written. */
  readonly refused: () => Promise<readonly Record<string, unknown>[]>;
  readonly closeService: () => void;
};

export const own = `unix:uid:${process.getuid?.() ?? 0}`;

export function entry(path: string, changes: Partial<RegistrationEntry> = {}): RegistrationEntry {
  return {
    id: path.replaceAll('/', '-').slice(1),
    spiffeId: SpiffeId.parseWorkload(`spiffe://example.org${path}`),
    selectors: [parseSelector(own)],
    ttlSeconds: 600,
    dnsNames: [],
    labels: {},
    hint: '',
    expiresAt: null,
    revision: 1,
    ...changes,
  };
}

export async function startSigning(
  scope: Scope,
  options: Partial<SigningOptions> = {},
  afterRecord: (withdraw: () => void) => void = () => undefined,
): Promise<RunningSigning> {
  const directory = makeTempDir(scope);
  const ca = await makeTestAuthority(new Date());
  const store = await openStore({
    dataDir: join(directory, 'data'),
    clock: systemClock,
    randomBytes: (size) => new Uint8Array(randomBytes(size)),
  });
  scope.defer(() => store.close());
  let registry = indexEntries([]);
  const failures: unknown[] = [];
  const refusals = createRefusals(
    (event) => void store.recordEvents([event]),
    systemClock,
    undefined,
    'issue',
  );
  scope.defer(() => refusals.close());
  const service = createSigningService({
    attest: createUnixAttestor(),
    entitled: ({ selectors }) => registry.match(selectors, new Date()),
    issue: createIssuer({
      authority: () => ca.authority,
      mayStillSign: () => true,
      record: async (event) => {
        const recorded = await store.recordProven(event);
        afterRecord(() => {
          registry = indexEntries([]);
        });
        return recorded;
      },
      clock: systemClock,
      isCurrent: (one) => registry.entry(one.id)?.revision === one.revision,
      bans: () => indexBans([]),
    }),
    bundle: () => ca.authority.bundle,
    recordRefusal: refusals.add,
    clock: systemClock,
    report: (error) => void failures.push(error),
    ...options,
  });
  const listener = await startGrpcListener({ path: join(directory, 's'), mode: 0o666, services: [service] });
  scope.defer(() => listener.close(200));
  const client = new SigningClient(`unix:${listener.path}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  scope.defer(() => client.close());

  const sign: RunningSigning['sign'] = (request, timeoutMs = 10_000) =>
    new Promise((resolve, reject) => {
      client.signX509(
        { csr: Buffer.alloc(0), spiffeId: '', ttlSeconds: 0n, ...request },
        { deadline: Date.now() + timeoutMs } as never,
        (error: ServiceError | null, response: SignX509Response) =>
          error === null ? resolve(response) : reject(error),
      );
    });
  const events: RunningSigning['events'] = async (type) => {
    const { rows } = await store.queryAudit({ ...everything, types: [type] });
    return rows.map(({ leaf }) => JSON.parse(leaf) as Record<string, unknown>);
  };
  return {
    ca,
    store,
    failures,
    register: (entries) => {
      registry = indexEntries(entries);
    },
    sign,
    refusal: async (request) => {
      try {
        await sign(request);
      } catch (error) {
        const { code, metadata } = error as ServiceError;
        return [String(metadata.get('countersign-code')[0]), code];
      }
      throw new Error('it was signed');
    },
    events,
    refused: () =>
      eventually('a refusal in the log', async () => {
        const found = await events('refusal');
        return found.length > 0 && found;
      }),
    closeService: service.close,
  };
}

const everything = {
  since: null,
  until: null,
  source: null,
  destination: null,
  verdict: null,
  serial: null,
  where: [],
  text: null,
  limit: 1_000,
  order: 'oldest',
  cursor: null,
} as const;
