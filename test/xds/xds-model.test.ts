import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { settle } from '../harness/manual-clock.ts';
import {
  answer,
  askAgain,
  change,
  type Client,
  connect,
  createClient,
  given,
  observe,
} from './xds-client.ts';
import {
  apiId,
  createWorld,
  limits,
  makePool,
  type Mesh,
  type Pool,
  webId,
  type World,
} from './xds-world.ts';

/** Clients of every form. They are one process and call themselves the same node, and know nothing of each other. */
const forms = [
  { isDelta: false, isAggregated: false },
  { isDelta: true, isAggregated: false },
  { isDelta: false, isAggregated: true },
  { isDelta: true, isAggregated: true },
] as const;
const names = [
  'default',
  webId,
  apiId,
  'ROOTCA',
  'ALL',
  'spiffe://friend.example',
  'spiffe://example.org/not-ours',
  '*',
  '__proto__',
] as const;

let pool: Pool;
beforeAll(async () => {
  pool = await makePool();
});

type Model = { mesh: Mesh; readonly clients: readonly Client[]; staleNonces: string[] };
type Real = { world: World };

/** Something that happens; afterwards everything comes to rest and every client is looked at. */
function command(
  name: string,
  detail: unknown,
  isPossible: (model: Model) => boolean,
  happen: (model: Model, real: Real) => void | Promise<void>,
): fc.AsyncCommand<Model, Real> {
  return {
    check: isPossible,
    toString: () =>
      `${name} ${JSON.stringify(detail, (_, value: unknown) => (value instanceof Set ? [...value] : value))}`,
    run: async (model, real) => {
      const before = real.world.acknowledged.length;
      await happen(model, real);
      for (const client of model.clients) await observe(client, real.world, model.mesh);
      // What counts as acknowledged somebody has in use, in exactly this version.
      for (const { name: secret, version } of real.world.acknowledged.slice(before)) {
        const holders = model.clients.filter(({ has, isDelta }) => !isDelta || has.get(secret) === version);
        expect([secret, holders.length > 0]).toEqual([secret, true]);
      }
    },
  };
}

const slot = fc.nat({ max: forms.length - 1 });
const wanted = fc.uniqueArray(fc.constantFrom(...names), { maxLength: names.length });

function at(model: Model, index: number): Client {
  return model.clients[index] as Client;
}
const isOpen = (index: number) => (model: Model) => at(model, index).line !== undefined;
const awaits = (index: number) => (model: Model) =>
  at(model, index).line !== undefined && at(model, index).pending !== undefined;

const opening = fc.record({ slot, wanted, withVersions: fc.boolean() }).map((one) =>
  command(
    'open',
    one,
    (model) => at(model, one.slot).line === undefined,
    (model, { world }) => connect(at(model, one.slot), world, one.wanted, one.withVersions),
  ),
);

const plainAck = slot.map((index) =>
  command('ack', index, awaits(index), (model) => answer(at(model, index), undefined)),
);

const reconnecting = fc
  .record({ slot, withVersions: fc.boolean(), web: fc.option(fc.nat({ max: 2 })) })
  .map((one) =>
    command('reconnect while the certificate changes', one, isOpen(one.slot), async (model, { world }) => {
      const client = at(model, one.slot);
      client.line?.close();
      client.line = undefined;
      model.mesh = { ...model.mesh, web: one.web };
      world.publish(model.mesh);
      for (const other of model.clients) {
        other.hasNews = true;
        await observe(other, world, model.mesh);
      }
      connect(client, world, [...client.names], one.withVersions);
    }),
  );

const clientMoves: fc.Arbitrary<fc.AsyncCommand<Model, Real>>[] = [
  fc.record({ slot, wanted: fc.option(wanted) }).map((one) =>
    command('ack with other names', one, awaits(one.slot), (model) => {
      const client = at(model, one.slot);
      model.staleNonces.push(client.pending?.nonce ?? '');
      answer(client, undefined, one.wanted === null ? client.names : new Set(one.wanted));
    }),
  ),
  fc.record({ slot, wanted: fc.option(wanted) }).map((one) =>
    command('nack', one, awaits(one.slot), (model) => {
      const client = at(model, one.slot);
      answer(client, 'Failed to load', one.wanted === null ? client.names : new Set(one.wanted));
    }),
  ),
  slot.map((index) =>
    command('nack that asks for what there is not', index, awaits(index), (model) => {
      const client = at(model, index);
      answer(client, 'Failed to load', new Set([...client.names, 'spiffe://example.org/not-ours']));
    }),
  ),
  fc
    .record({ slot, wanted })
    .map((one) =>
      command('names', one, isOpen(one.slot), (model) =>
        change(at(model, one.slot), new Set(one.wanted), ''),
      ),
    ),
  fc.record({ slot, wanted }).map((one) =>
    command('stale or unknown nonce', one, isOpen(one.slot), (model) => {
      const client = at(model, one.slot);
      const stale = model.staleNonces.filter((nonce) => nonce !== client.last?.nonce).at(-1);
      change(client, new Set(one.wanted), stale ?? 'of-nobody');
    }),
  ),
  slot.map((index) => command('ask again', index, isOpen(index), (model) => askAgain(at(model, index)))),
  slot.map((index) =>
    command(
      'the last request again',
      index,
      (model) => isOpen(index)(model) && at(model, index).lastRequest.responseNonce !== undefined,
      (model, { world }) => {
        const { line, lastRequest, isDelta } = at(model, index);
        const before = world.acknowledged.length;
        // What it subscribed to is said without, as that would be another subscription.
        line?.send(isDelta ? { ...lastRequest, resourceNamesSubscribe: [] } : lastRequest);
        expect(world.acknowledged.length).toBe(before);
      },
    ),
  ),
  slot.map((index) =>
    command('half-close', index, isOpen(index), async (model) => {
      const { line } = at(model, index);
      line?.close();
      await settle();
      expect(line?.ended()).toBe('OK');
    }),
  ),
  slot.map((index) =>
    command('another type', index, isOpen(index), async (model, { world }) => {
      const { line, isAggregated } = at(model, index);
      const before = world.ignored.length;
      line?.send({ typeUrl: 'type.googleapis.com/envoy.config.cluster.v3.Cluster', responseNonce: '' });
      await settle();
      expect(line?.ended()).toBe(isAggregated ? undefined : 'message_invalid');
      expect(world.ignored.length - before).toBeLessThanOrEqual(isAggregated ? 1 : 0);
    }),
  ),
  slot.map((index) =>
    command('stop reading', index, isOpen(index), (model) => {
      at(model, index).isStalled = true;
      at(model, index).line?.stall();
    }),
  ),
];

const waiting = fc.constantFrom(limits.writeMs, limits.answerMs).map((ms) =>
  command(
    'wait',
    ms,
    () => true,
    async (model, { world }) => {
      const before = model.clients.map(({ line, isStalled, pending, hasNews, owed, suspects }) => ({
        line,
        mayEnd: isStalled || (pending !== undefined && (hasNews || owed.size + suspects.size > 0)),
      }));
      await world.clock.advance(ms + 1);
      for (const { line, mayEnd } of before) {
        if (line?.ended() === undefined) continue;
        // Only who does not read, or does not answer while something newer waits.
        expect([line.ended(), mayEnd]).toEqual(['stream_stalled', true]);
      }
    },
  ),
);

function meshMove(name: string, detail: unknown, edit: (mesh: Mesh) => Mesh): fc.AsyncCommand<Model, Real> {
  return command(
    name,
    detail,
    () => true,
    async (model, { world }) => {
      const holders = model.clients.map((client) => ({
        client,
        line: client.line,
        had: given(client, world),
      }));
      model.mesh = edit(model.mesh);
      const before = names.map(world.version);
      world.publish(model.mesh);
      await settle();
      const hasChanged = names.some((one, index) => before[index] !== world.version(one));
      for (const { client, line, had } of holders) {
        if (line === undefined) continue;
        if (hasChanged) client.hasNews = true;
        // What does not leave for a client that does not read has been given to it all the same.
        if (client.isStalled) continue;
        const isLost = world.bannedIds().some((id) => had.has(id));
        expect([[...had], line.ended()]).toEqual([[...had], isLost ? 'identity_banned' : undefined]);
      }
    },
  );
}

const version = fc.nat({ max: 2 });
const identity = fc.constantFrom('web' as const, 'api' as const);
const meshMoves = [
  fc
    .tuple(identity, version)
    .map(([who, to]) => meshMove('rotate', [who, to], (mesh) => ({ ...mesh, [who]: to }))),
  identity.map((who) => meshMove('delete', who, (mesh) => ({ ...mesh, [who]: null }))),
  version.map((bundle) => meshMove('bundle', bundle, (mesh) => ({ ...mesh, bundle }))),
  fc.boolean().map((friend) => meshMove('federate', friend, (mesh) => ({ ...mesh, friend }))),
  fc
    .subarray([webId, apiId])
    .map((banned) => meshMove('ban', banned, (mesh) => ({ ...mesh, banned: new Set(banned) }))),
];

test(
  'every form keeps the promises of the protocol, whatever client and mesh do',
  { timeout: 120_000 },
  async () => {
    const often = [opening, plainAck, reconnecting];
    const all = [...often, ...often, plainAck, ...clientMoves, waiting, ...meshMoves];
    const moves = fc.commands(all, { maxCommands: 60, size: 'max' });
    await fc.assert(
      fc.asyncProperty(moves, fc.boolean(), async (commands, isTogether) => {
        const mesh: Mesh = { web: 0, api: 0, banned: new Set(), bundle: 0, friend: true };
        const world = createWorld(pool, mesh, isTogether);
        const clients = forms.map(({ isDelta, isAggregated }) => createClient(isDelta, isAggregated));
        const setup = () => ({ model: { mesh, clients, staleNonces: [] } as Model, real: { world } });
        try {
          await fc.asyncModelRun(setup, commands);
        } finally {
          await world.close();
        }
      }),
      { numRuns: 400 },
    );
  },
);
