import type { MadeKey, RecordedAction, RotationEffect, RotationEvent } from './rotation-event.ts';
import {
  activeRoot,
  type Evidence,
  type Laggard,
  lifeLeft,
  preparedRoot,
  preparedSigner,
  presenters,
  publishedRoots,
  type RotationState,
  signerOf,
  type Slot,
  slotOf,
  type SlotState,
  unconfirmed,
} from './slot.ts';

/** The most roots in a bundle: they pile up only by mistake, and a proxy tries them all. */
export const maxPublishedRoots = 8;

type Step = readonly [RotationState, readonly RotationEffect[]];

/**
 * The rotation of a CA's keys, as a pure reducer. Whoever runs it stores the new state, with the recorded events, before
 * it carries out any other effect; keys are sealed on disk before `made`.
 *
 * INVARIANTS, after every step:
 * - at most one intermediate is active, exactly one once there was a first; its root is active too
 * - nothing signs whose root is not in the bundle in force; without `force`, whose root is not in the bundle that every
 *   holder of an unexpired certificate has confirmed
 * - a root leaves the bundle only when nobody can present a certificate under it any more, or when it never signed, or
 *   by `force`
 * - the bundle is never empty once it was not, and its sequence grows by one whenever its roots change
 * - `retired` is final
 * - nothing is made here under a root that is kept elsewhere, and nothing takes its place but what somebody imports
 * - at most one key waits for a certificate, and it has no slot
 */
export function rotate(state: RotationState, event: RotationEvent, now: Date): Step {
  switch (event.kind) {
    case 'rotate':
      return onRotate(state, event);
    case 'requested':
      return onRequested(state, event.keyId);
    case 'imported':
      return onImported(state, event);
    case 'made':
      return onMade(state, event.keys);
    case 'activate':
      return onActivate(state, event, now);
    case 'retire':
      return onRetire(state, event, now);
    case 'taint':
      return onTaint(state, event.keyId);
    case 'tick':
      return onTick(state, event.evidence, now);
    default:
      return event satisfies never;
  }
}

function onRotate(
  state: RotationState,
  { scope, offline = false }: Extract<RotationEvent, { kind: 'rotate' }>,
): Step {
  const root = activeRoot(state);
  if (offline || root?.offline === true) {
    // INVARIANT: where the root is kept elsewhere none is ever made here: somebody chose that.
    if (state.requested === null) return [state, [{ kind: 'request' }]];
    return outOfOrder(
      state,
      'a key waits for its certificate already',
      'print its request with `countersign ca csr`, or use `countersign ca taint` on it to have another one',
    );
  }
  if (scope === 'intermediate' && root !== undefined) return [state, [make(root.keyId)]];
  if (preparedRoot(state) !== undefined) {
    return outOfOrder(state, 'a new root is prepared already', 'use `countersign ca activate` first');
  }
  if (publishedRoots(state).length >= maxPublishedRoots) return tooManyRoots(state);
  return [state, [make(null)]];
}

function onRequested(state: RotationState, keyId: string): Step {
  if (state.requested === keyId || slotOf(state, keyId) !== undefined) return [state, []];
  if (state.requested !== null) {
    return outOfOrder(state, 'a key waits for its certificate already', 'see `countersign ca csr`');
  }
  return [{ ...state, requested: keyId }, [record('requested', keyId)]];
}

function onImported(
  state: RotationState,
  { root, signer }: Extract<RotationEvent, { kind: 'imported' }>,
): Step {
  if (state.requested !== signer.keyId) return notWaiting(state);
  const known = slotOf(state, root.keyId);
  if (known !== undefined && !growing.has(known.state)) {
    return outOfOrder(
      state,
      'the root of that chain was taken out of use',
      'have the request signed under the active root, or under a new one',
    );
  }
  if (known === undefined && preparedRoot(state) !== undefined) {
    return outOfOrder(state, 'another new root is prepared already', 'use `countersign ca activate` first');
  }
  if (known === undefined && publishedRoots(state).length >= maxPublishedRoots) return tooManyRoots(state);
  const [after, effects] = onMade(state, known === undefined ? [root, signer] : [signer]);
  if (effects.some(({ kind }) => kind === 'refuse')) return [state, effects];
  return [
    { ...after, requested: null },
    effects.map((effect) => (isNew(effect) ? { ...effect, evidence: imported } : effect)),
  ];
}

function onMade(state: RotationState, keys: readonly MadeKey[]): Step {
  // A repeated event is no second key.
  const news = keys.filter(({ keyId }) => slotOf(state, keyId) === undefined);
  if (news.length === 0) return [state, []];
  const first = activeRoot(state) === undefined;
  const publishes = news.some(({ kind }) => kind === 'root');
  const misfit = publishes
    ? preparedRoot(state) !== undefined
    : news.some(({ rootKeyId }) => !growing.has(slotOf(state, rootKeyId)?.state ?? 'retired'));
  if (misfit) {
    return outOfOrder(state, 'the keys were made for a state that is over', 'see `countersign ca status`');
  }
  const sequence = publishes ? state.sequence + 1 : state.sequence;
  const slots = news.map((key): Slot => ({
    ...key,
    state: 'prepared',
    tainted: false,
    publishedIn: key.kind === 'root' ? sequence : 0,
  }));
  const grown = { ...state, slots: [...state.slots, ...slots], sequence };
  const effects = slots.map(({ keyId }) => record(first ? 'created' : 'prepared', keyId));
  if (publishes) effects.push({ kind: 'publish', sequence });
  const signer = slots.find(({ kind }) => kind === 'intermediate');
  if (signer === undefined) return [grown, effects];
  if (first || slotOf(grown, signer.rootKeyId)?.state === 'active') {
    // The root is trusted already, or nobody trusts anything yet: there is nothing to wait for.
    const [after, more] = signWith(grown, signer, first ? null : { forced: false, evidence: sameRoot });
    return [after, [...effects, ...more]];
  }
  const replaced = state.slots.filter(
    ({ kind, rootKeyId, state: at }) =>
      kind === 'intermediate' && rootKeyId === signer.rootKeyId && at === 'prepared',
  );
  return withdraw(grown, replaced, effects, 'a newer one was prepared in its place');
}

function onActivate(
  state: RotationState,
  { evidence, force }: Extract<RotationEvent, { kind: 'activate' }>,
  now: Date,
): Step {
  const root = preparedRoot(state);
  const signer = preparedSigner(state, root);
  if (root === undefined || signer === undefined) {
    return outOfOrder(state, 'no new root is prepared', 'use `countersign ca rotate --root` first');
  }
  if (signer.notAfter <= now || signer.notBefore > now) {
    return outOfOrder(
      state,
      'the prepared intermediate is not valid now',
      "check this machine's clock, then use `countersign ca rotate --root`",
    );
  }
  const laggards = unconfirmed(evidence, root.publishedIn, now);
  if (!force) {
    const why = evidence.doubt ?? 'not everybody trusts the new root yet';
    if (evidence.doubt !== null || laggards.length > 0) return unproven(state, why, laggards);
  }
  return signWith(state, signer, { forced: force, evidence: summary(evidence, laggards) });
}

function onRetire(
  state: RotationState,
  { evidence, force }: Extract<RotationEvent, { kind: 'retire' }>,
  now: Date,
): Step {
  const roots = state.slots.filter(({ kind, state: at }) => kind === 'root' && at === 'retiring');
  const root = activeRoot(state);
  if (roots.length === 0 || root === undefined) {
    return outOfOrder(
      state,
      'no old root is left to retire',
      'use `countersign ca activate` on a new one first',
    );
  }
  const old = new Set(roots.map(({ keyId }) => keyId));
  const issuers = state.slots.filter(({ rootKeyId }) => old.has(rootKeyId));
  const laggards = [
    ...presenters(evidence, new Set(issuers.map(({ keyId }) => keyId)), now),
    ...unconfirmed(evidence, root.publishedIn, now),
  ];
  if (!force) {
    const why = evidence.doubt ?? 'the old root is still needed';
    if (evidence.doubt !== null || laggards.length > 0) return unproven(state, why, laggards);
  }
  return withdraw(state, issuers, [], summary(evidence, laggards), force);
}

function onTaint(state: RotationState, keyId: string): Step {
  if (state.requested === keyId) {
    // Nobody has certified it: it goes at once, and another one waits in its place.
    const without = { ...state, requested: null };
    const effects: RotationEffect[] = [record('tainted', keyId), { kind: 'forget', keyIds: [keyId] }];
    return [without, [...effects, { kind: 'request' }]];
  }
  const slot = slotOf(state, keyId);
  if (slot === undefined) {
    const refusal = { code: 'authority_not_found', why: 'no CA of ours has this key id' } as const;
    return [state, [{ kind: 'refuse', refusal }]];
  }
  if (slot.state === 'retired') {
    return outOfOrder(state, 'that CA is retired: nobody trusts it any more', 'see `countersign ca status`');
  }
  if (slot.tainted) return [state, replacement(state)];
  const tainted = change(state, [slot], { tainted: true });
  const effects = [record('tainted', keyId)];
  // What never signed can go at once; what is needed is replaced first.
  if (slot.state === 'prepared') {
    const under = state.slots.filter(
      ({ keyId: own, rootKeyId, state: at }) => (own === keyId || rootKeyId === keyId) && at === 'prepared',
    );
    const [after, more] = withdraw(tainted, under, effects, 'it never signed');
    return [after, [...more, ...replacement(after)]];
  }
  if (slot.kind === 'intermediate' && slot.state === 'retiring') effects.push(reissue([keyId]));
  return [tainted, [...effects, ...replacement(tainted)]];
}

function onTick(state: RotationState, evidence: Evidence, now: Date): Step {
  // INVARIANT: a clock that was moved rotates nothing by itself.
  if (evidence.doubt !== null) return [state, []];
  const over = state.slots.filter(
    ({ kind, state: at, keyId }) =>
      kind === 'intermediate' &&
      at === 'retiring' &&
      presenters(evidence, new Set([keyId]), now).length === 0,
  );
  const [rested, effects] = withdraw(state, over, [], 'nobody has a certificate of it any more');
  const due = replacement(rested);
  return [rested, [...effects, ...(due.length > 0 ? due : scheduled(rested, now))]];
}

/** What a tainted or missing key makes necessary; at most one thing, for the next tick sees to the next. */
function replacement(state: RotationState): RotationEffect[] {
  const [root, prepared, signer] = [activeRoot(state), preparedRoot(state), signerOf(state)];
  if (root === undefined) return [];
  if (signer?.tainted === true) return renew(state, root);
  if (root.tainted && prepared === undefined) return root.offline ? renew(state, root) : [make(null)];
  if (prepared !== undefined && preparedSigner(state, prepared) === undefined) return renew(state, prepared);
  return [];
}

/** What is due by the calendar. A new root is only prepared: activating it waits for evidence, and for somebody. */
function scheduled(state: RotationState, now: Date): RotationEffect[] {
  const [root, prepared, signer] = [activeRoot(state), preparedRoot(state), signerOf(state)];
  if (root === undefined || signer === undefined) return [];
  // One that ends with its root gains nothing from a successor.
  if (lifeLeft(signer, now) <= 1 / 3 && (root.notAfter > signer.notAfter || root.offline)) {
    const due = renew(state, root);
    if (due.length > 0) return due;
  }
  if (lifeLeft(root, now) < 1 / 4 && prepared === undefined)
    return root.offline ? renew(state, root) : [make(null)];
  const waiting = preparedSigner(state, prepared);
  if (prepared !== undefined && waiting !== undefined && lifeLeft(waiting, now) <= 1 / 3) {
    return prepared.notAfter > waiting.notAfter || prepared.offline ? renew(state, prepared) : [];
  }
  return [];
}

/** Another intermediate under a root: made here, or asked for where the root is kept, once. */
function renew({ requested }: RotationState, root: Slot): RotationEffect[] {
  if (!root.offline) return [make(root.keyId)];
  return requested === null ? [{ kind: 'request' }] : [];
}

/** Makes an intermediate the one that signs, and its root the one it signs under. @param grant null on the first start */
function signWith(
  state: RotationState,
  signer: Slot,
  grant: { readonly forced: boolean; readonly evidence: string } | null,
): Step {
  const [oldSigner, oldRoot] = [signerOf(state), activeRoot(state)];
  const newRoot = oldRoot?.keyId !== signer.rootKeyId;
  const retiring = [oldSigner, newRoot ? oldRoot : undefined].filter((slot) => slot !== undefined);
  const activated = state.slots.filter(
    ({ keyId }) => keyId === signer.keyId || (newRoot && keyId === signer.rootKeyId),
  );
  const after = change(change(state, retiring, { state: 'retiring' }), activated, { state: 'active' });
  const effects: RotationEffect[] =
    grant === null
      ? []
      : activated.map(({ keyId }) =>
          record(grant.forced ? 'forced' : 'activated', keyId, grant.forced, grant.evidence),
        );
  effects.push({ kind: 'sign_with', keyId: signer.keyId });
  // Under the same root old certificates do no harm, unless somebody else can make them too.
  const outdated = state.slots.filter(
    ({ kind, keyId, rootKeyId, state: at }) =>
      kind === 'intermediate' &&
      at !== 'retired' &&
      (newRoot ? rootKeyId === oldRoot?.keyId : keyId === oldSigner?.keyId && oldSigner.tainted),
  );
  if (outdated.length > 0) effects.push(reissue(outdated.map(({ keyId }) => keyId)));
  return [after, effects];
}

/** Retires slots for good. Those of roots change the bundle. */
function withdraw(
  state: RotationState,
  slots: readonly Slot[],
  before: readonly RotationEffect[],
  evidence: string,
  forced = false,
): Step {
  const gone = slots.filter(({ state: at }) => at !== 'retired');
  if (gone.length === 0) return [state, before];
  const publishes = gone.some(({ kind }) => kind === 'root');
  const sequence = publishes ? state.sequence + 1 : state.sequence;
  const effects: RotationEffect[] = [
    ...before,
    ...gone.map(({ keyId }) => record(forced ? 'forced' : 'retired', keyId, forced, evidence)),
    ...(publishes ? [{ kind: 'publish', sequence } as const] : []),
    { kind: 'forget', keyIds: gone.map(({ keyId }) => keyId) },
  ];
  return [{ ...change(state, gone, { state: 'retired' }), sequence }, effects];
}

function change(
  state: RotationState,
  slots: readonly Slot[],
  to: { readonly state?: SlotState; readonly tainted?: true },
): RotationState {
  const ids = new Set(slots.map(({ keyId }) => keyId));
  return { ...state, slots: state.slots.map((slot) => (ids.has(slot.keyId) ? { ...slot, ...to } : slot)) };
}

function isNew(effect: RotationEffect): boolean {
  return effect.kind === 'record' && (effect.action === 'created' || effect.action === 'prepared');
}

function summary({ holders, doubt }: Evidence, laggards: readonly Laggard[]): string {
  const counted = `${holders.length} holders of certificates, ${laggards.length} in the way`;
  return doubt === null ? counted : `${counted}; ${doubt}`;
}

function tooManyRoots(state: RotationState): Step {
  return outOfOrder(
    state,
    `${maxPublishedRoots} roots are published`,
    'use `countersign ca retire` on the old ones first',
  );
}

function notWaiting(state: RotationState): Step {
  const refusal = { code: 'csr_not_waiting', why: 'no key waits for that certificate' } as const;
  return [state, [{ kind: 'refuse', refusal }]];
}

function make(rootKeyId: string | null): RotationEffect {
  return { kind: 'make', rootKeyId };
}

function reissue(issuerKeyIds: readonly string[]): RotationEffect {
  return { kind: 'reissue', issuerKeyIds };
}

function record(action: RecordedAction, keyId: string, forced = false, evidence = ''): RotationEffect {
  return { kind: 'record', action, keyId, forced, evidence };
}

function unproven(state: RotationState, why: string, laggards: readonly Laggard[]): Step {
  return [state, [{ kind: 'refuse', refusal: { code: 'rotation_unproven', why, laggards } }]];
}

function outOfOrder(state: RotationState, why: string, fix: string): Step {
  return [state, [{ kind: 'refuse', refusal: { code: 'rotation_out_of_order', why, fix } }]];
}

const growing: ReadonlySet<SlotState> = new Set(['prepared', 'active']);
const imported = 'imported: signed elsewhere';
const sameRoot = 'its root is trusted already';
