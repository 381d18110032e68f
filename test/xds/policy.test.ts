import { afterEach, describe, expect, test } from 'vitest';
import { AggregatedDiscoveryServiceClient } from '../../src/wire/ads.ts';
import { ExtensionConfigDiscoveryServiceClient } from '../../src/wire/ecds.ts';
import { Resource as WireResource } from '../../src/wire/discovery.ts';
import { extensionTypeUrl } from '../../src/xds/policy-resource.ts';
import { eventually } from '../harness/eventually.ts';
import { manualClock } from '../harness/manual-clock.ts';
import { createScope, type Scope } from '../harness/scope.ts';
import { followDelta, followStream } from './harness.ts';
import { addressOf, idOf, leafOf, nodeOf, openPolicyDoor, type PolicyDoor } from './policy-door.ts';

const scope: Scope = createScope();
afterEach(() => scope.close());

const web = `countersign.policy/${idOf('web')}`;
const own = 'countersign.policy';

/** One stream that says yes to what it is sent, and the leaf that it has under each name. */
type Line = {
  readonly leaves: Map<string, string>;
  /** Responses, beats included. */
  readonly responses: () => number;
  readonly beats: () => number;
  /** From now on everything is refused. */
  refuses: string | undefined;
  readonly end: () => void;
};

const forms = ['ECDS', 'delta ECDS', 'ADS', 'delta ADS'] as const;

function openLine(
  door: PolicyDoor,
  form: (typeof forms)[number],
  names: readonly string[],
  { node = nodeOf(), has = {} }: { node?: ReturnType<typeof nodeOf>; has?: Record<string, string> } = {},
): Line {
  const isAds = form.endsWith('ADS');
  const ads = new AggregatedDiscoveryServiceClient(...addressOf(door));
  const ecds = new ExtensionConfigDiscoveryServiceClient(...addressOf(door));
  scope.defer(() => [ads, ecds].forEach((client) => client.close()));
  let [responses, beats] = [0, 0];
  const line: Line = {
    leaves: new Map(),
    responses: () => responses,
    beats: () => beats,
    refuses: undefined,
    end: () => call.cancel(),
  };
  const take = (resource: { name: string; resource: { value: Uint8Array } | undefined }): void => {
    if (line.refuses !== undefined) return;
    if (resource.resource === undefined) beats += 1;
    else line.leaves.set(resource.name, leafOf(resource.resource.value, resource.name));
  };
  const nack = () => ({
    errorDetail: line.refuses === undefined ? undefined : { code: 13, message: line.refuses, details: [] },
  });
  if (form.startsWith('delta')) {
    const stream = followDelta(isAds ? ads.deltaAggregatedResources() : ecds.deltaExtensionConfigs());
    const { call } = stream;
    call.on('data', ({ nonce, resources, removedResources }) => {
      responses += 1;
      resources.forEach(take);
      for (const name of removedResources) line.leaves.delete(name);
      stream.send({ typeUrl: extensionTypeUrl, responseNonce: nonce, ...nack() });
    });
    stream.send({
      typeUrl: extensionTypeUrl,
      node,
      resourceNamesSubscribe: [...names],
      initialResourceVersions: has,
    });
    return Object.assign(line, { end: () => call.cancel() });
  }
  const stream = followStream(isAds ? ads.streamAggregatedResources() : ecds.streamExtensionConfigs());
  const { call } = stream;
  call.on('data', ({ nonce, resources, versionInfo }) => {
    responses += 1;
    for (const { value } of resources) take(WireResource.decode(value));
    const resourceNames = [...names];
    stream.send({ typeUrl: extensionTypeUrl, responseNonce: nonce, versionInfo, resourceNames, ...nack() });
  });
  stream.send({ typeUrl: extensionTypeUrl, node, resourceNames: [...names] });
  return Object.assign(line, { end: () => call.cancel() });
}

const shows = (line: Line, leaves: Record<string, string>): Promise<boolean> =>
  eventually(`leaves ${JSON.stringify(leaves)}`, () =>
    Object.entries(leaves).every(([name, leaf]) => line.leaves.get(name) === leaf),
  );

describe.each(forms)('policies over %s', (form) => {
  test('are those of the caller, by ID and by default, and those of others deny', async () => {
    const door = await openPolicyDoor(scope, {
      identities: ['web', 'api'],
      leaves: { web: 'allow:shop/web[0]', api: 'ask:claims', db: 'allow:shop/db[0]' },
    });
    const api = `countersign.policy/${idOf('api')}`;
    const tcp = `countersign.tcp-policy/${idOf('api')}`;
    const db = `countersign.policy/${idOf('db')}`;
    const line = openLine(door, form, [own, web, api, tcp, db]);
    await shows(line, {
      [own]: 'allow:shop/web[0]',
      [web]: 'allow:shop/web[0]',
      [api]: 'ask:claims',
      [tcp]: 'ask:claims',
      // Whatever the caller had under this name before, it has no longer.
      [db]: 'deny:identity_none',
    });
    expect(line.responses()).toBe(1);
  });

  test('change when they change, and are not sent again when they do not', async () => {
    const door = await openPolicyDoor(scope);
    const line = openLine(door, form, [web]);
    await shows(line, { [web]: 'allow:shop/web[0]' });
    for (const number of [2, 3, 4]) door.set({ number });
    await eventually('the revision to be noted', () => door.standings()[0]?.policyRevision === 4);
    expect([line.responses(), door.standings()]).toMatchObject([1, [{ state: 'current', name: web }]]);
    door.set({ number: 5, leaves: { web: 'deny:no_allow_rule' } });
    await shows(line, { [web]: 'deny:no_allow_rule' });
    expect(line.responses()).toBe(2);
  });

  test('of a banned and of a lost identity are taken back by a policy that denies', async () => {
    const door = await openPolicyDoor(scope);
    const line = openLine(door, form, [own, web]);
    await shows(line, { [web]: 'allow:shop/web[0]' });
    door.set({ bans: [{ kind: 'spiffe-id', value: idOf('web'), reason: 'stolen' }] });
    await shows(line, { [own]: 'deny:identity_banned', [web]: 'deny:identity_banned' });
    door.set({ bans: [] });
    await shows(line, { [own]: 'allow:shop/web[0]', [web]: 'allow:shop/web[0]' });
    door.set({ identities: [] });
    await shows(line, { [own]: 'deny:identity_none', [web]: 'deny:identity_none' });
  });

  test('that are refused are told, with the old one in force, and not sent again', async () => {
    const door = await openPolicyDoor(scope);
    const line = openLine(door, form, [web]);
    await shows(line, { [web]: 'allow:shop/web[0]' });
    await eventually('it to be in use', () => door.standings()[0]?.state === 'current');
    const [{ acknowledged } = { acknowledged: '' }] = door.standings();
    line.refuses = `bad ${'x'.repeat(2_000)}`;
    door.set({ number: 2, leaves: { web: 'deny:no_allow_rule' } });
    const refused = await eventually('the refusal', () =>
      door.standings().find(({ state }) => state === 'rejected'),
    );
    expect(refused).toMatchObject({
      acknowledged,
      policyRevision: 1,
      rejection: expect.stringMatching(/^bad x/),
    });
    expect(refused.rejection.length).toBe(1_024);
    expect(refused.desired).not.toBe(acknowledged);
    // Nothing but a change is sent, whatever else happens.
    for (const number of [3, 4]) door.set({ number });
    await eventually('them to be made', () => door.compiled.length >= 3);
    expect([line.responses(), line.leaves.get(web)]).toEqual([2, 'allow:shop/web[0]']);
    line.refuses = undefined;
    door.set({ number: 5, leaves: { web: 'deny:repaired' } });
    await shows(line, { [web]: 'deny:repaired' });
    expect(door.told.filter((what) => what.startsWith('rejected'))).toHaveLength(1);
    await eventually('it to be in use', () => door.standings()[0]?.state === 'current');
    expect(door.standings()).toMatchObject([{ policyRevision: 5, rejection: '', behindSince: null }]);
  });

  test.each([
    ['nothing', nodeOf({ policy: null }), undefined, 'declare ask-v1'],
    ['no tree', nodeOf({ policy: ['ask-v1'] }), 'ask:capability_lacking', 'matcher-v1'],
  ])(
    'are not for a proxy that lacks what they need: it is served %s, and named',
    async (_, node, leaf, lacks) => {
      const door = await openPolicyDoor(scope);
      const line = openLine(door, form, [web], { node });
      if (leaf !== undefined) await shows(line, { [web]: leaf });
      const [standing] = await eventually('it', () => door.standings().length > 0 && door.standings());
      expect(standing?.lacks).toContain(lacks);
      expect(standing?.state).toMatch(leaf === undefined ? /unserved/ : /current|behind/);
      expect(line.responses()).toBe(leaf === undefined ? 0 : 1);
      expect(door.told).toContainEqual(expect.stringContaining(lacks));
    },
  );

  test('live on by beats, which are no news; after too long a silence they are sent again', async () => {
    const clock = manualClock();
    const door = await openPolicyDoor(scope, { usableForSeconds: 80 }, { clock });
    const line = openLine(door, form, [web]);
    await shows(line, { [web]: 'allow:shop/web[0]' });
    await eventually('it to be in use', () => door.standings()[0]?.state === 'current');
    await clock.advance(10_000);
    await eventually('a beat', () => line.responses() === 2);
    // In the other form it holds all of it again, and is no news either.
    expect(line.beats()).toBe(form.startsWith('delta') ? 1 : 0);
    expect(door.told.filter((what) => what === 'pushed')).toHaveLength(1);
    line.leaves.clear();
    clock.jump(80_000);
    await clock.advance(10_000);
    await shows(line, { [web]: 'allow:shop/web[0]' });
    expect(line.responses()).toBe(3);
  });
});

test('names that are not policies are not answered, and told', async () => {
  const door = await openPolicyDoor(scope);
  const strange = [
    'other',
    'countersign.policy/',
    `countersign.policy/${idOf('a')}/../b`,
    'countersign.policyx',
  ];
  const line = openLine(door, 'ECDS', [...strange, web]);
  await shows(line, { [web]: 'allow:shop/web[0]' });
  expect([...line.leaves.keys()]).toEqual([web]);
  expect(door.refusals.map(({ resource, code }) => [resource, code])).toEqual(
    strange.map((name) => [name, 'identity_none']),
  );
});

test('a client that has what it should have, by its own word, is told at once that it lives on; one that lost its entry meanwhile is denied', async () => {
  const door = await openPolicyDoor(scope);
  const first = openLine(door, 'delta ECDS', [web]);
  await shows(first, { [web]: 'allow:shop/web[0]' });
  const [{ desired } = { desired: '' }] = door.standings();
  first.end();
  await eventually('it to be gone', () => door.standings().length === 0);
  const second = openLine(door, 'delta ECDS', [web], { has: { [web]: desired } });
  await eventually('it to be known', () => door.standings()[0]?.acknowledged === desired);
  // By somebody else it was given for a time of which nobody here knows the end.
  await eventually('a beat', () => second.beats() === 1);
  expect([second.responses(), door.standings()[0]?.state]).toEqual([1, 'current']);
  expect(door.told.filter((what) => what === 'pushed')).toHaveLength(1);
  second.end();
  // What it lacks and what it brings along are one message.
  const both = openLine(door, 'delta ECDS', [web, own], { has: { [web]: desired } });
  await shows(both, { [web]: 'allow:shop/web[0]', [own]: 'allow:shop/web[0]' });
  both.end();
  door.set({ identities: [] });
  const third = openLine(door, 'delta ECDS', [web], { has: { [web]: desired } });
  await shows(third, { [web]: 'deny:identity_none' });
});

test('a policy revision below one that was served is not served: every call is asked about', async () => {
  const door = await openPolicyDoor(scope, { number: 7 });
  const line = openLine(door, 'ECDS', [web]);
  await shows(line, { [web]: 'allow:shop/web[0]' });
  door.set({ number: 6, leaves: { web: 'allow:shop/old[0]' } });
  await shows(line, { [web]: 'ask:older_revision' });
  expect(door.told).toContainEqual(expect.stringContaining('policy revision 6 comes after 7'));
  door.set({ number: 8, leaves: { web: 'allow:shop/new[0]' } });
  await shows(line, { [web]: 'allow:shop/new[0]' });
});

test('a response without an answer is told', async () => {
  const door = await openPolicyDoor(scope, {}, { limits: { answerMs: 20 } });
  const client = new ExtensionConfigDiscoveryServiceClient(...addressOf(door));
  scope.defer(() => client.close());
  const stream = followStream(client.streamExtensionConfigs());
  stream.send({ typeUrl: extensionTypeUrl, node: nodeOf(), resourceNames: [web] });
  await stream.response();
  await eventually('the silence', () => door.told.includes('unanswered'));
  expect(door.standings()).toMatchObject([{ state: 'behind', acknowledged: '' }]);
});

test('is fetched by the same rules', async () => {
  const door = await openPolicyDoor(scope);
  const client = new ExtensionConfigDiscoveryServiceClient(...addressOf(door));
  scope.defer(() => client.close());
  const request = {
    versionInfo: '',
    node: nodeOf(),
    resourceNames: [web],
    typeUrl: extensionTypeUrl,
    responseNonce: '',
    errorDetail: undefined,
  };
  const { resources } = await new Promise<{ resources: { value: Buffer }[] }>((resolve, reject) =>
    client.fetchExtensionConfigs(request, (error, response) =>
      error === null ? resolve(response) : reject(error),
    ),
  );
  expect(resources.map(({ value }) => leafOf(value, web))).toEqual(['allow:shop/web[0]']);
});
