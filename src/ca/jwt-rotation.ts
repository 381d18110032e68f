import {
  type JwtEvidence,
  type JwtKeyState,
  jwtSchedule,
  jwtSignerOf,
  type JwtSlot,
  maxPublishedJwtKeys,
  provenFrom,
  publishedJwtKeys,
  unusedFrom,
} from './jwt-slot.ts';

export type JwtKeyEvent =
  /** Somebody asks for a new key. */
  | { readonly kind: 'rotate' }
  /** The key of a `make` effect exists and is sealed on disk. */
  | { readonly kind: 'made'; readonly key: MadeJwtKey }
  /** Somebody asks to sign with the prepared key. */
  | { readonly kind: 'activate'; readonly evidence: JwtEvidence; readonly force: boolean }
  /** Somebody asks to take retiring keys out of the bundle. */
  | { readonly kind: 'retire'; readonly evidence: JwtEvidence; readonly force: boolean }
  | { readonly kind: 'taint'; readonly keyId: string }
  /** No key signs: puts the prepared one in force, or asks for one. */
  | { readonly kind: 'replace' }
  /** Time has passed: does what is due. */
  | { readonly kind: 'tick'; readonly evidence: JwtEvidence };

/** A key that was made, before it has a slot. */
export type MadeJwtKey = Pick<JwtSlot, 'keyId' | 'keyType' | 'publicKey'>;

export type JwtKeyEffect =
  /** Make a key; then say `made`. */
  | { readonly kind: 'make' }
  /** No key signs any more; say `replace` next. What follows may fail, and what came before it stands. */
  | { readonly kind: 'replace' }
  /** The bundle has changed: give it to everybody. */
  | { readonly kind: 'publish'; readonly sequence: number }
  /** From now on this key signs. */
  | { readonly kind: 'sign_with'; readonly keyId: string }
  /** Delete these private keys. */
  | { readonly kind: 'forget'; readonly keyIds: readonly string[] }
  | {
      readonly kind: 'record';
      readonly action: JwtKeyAction;
      readonly keyId: string;
      /** Empty, or what the step was permitted on. */
      readonly evidence: string;
    }
  /** The step was not taken: the only effect then, and the state is the same. */
  | { readonly kind: 'refuse'; readonly refusal: JwtKeyRefusal };

/** `forced`: activated or withdrawn without the evidence it takes. */
export type JwtKeyAction = 'created' | 'prepared' | 'activated' | 'retired' | 'tainted' | 'forced';

export type JwtKeyRefusal =
  | { readonly code: 'rotation_unproven'; readonly why: string }
  | { readonly code: 'rotation_out_of_order'; readonly why: string; readonly fix: string }
  | { readonly code: 'authority_not_found'; readonly why: string };

type Step = readonly [JwtKeyState, readonly JwtKeyEffect[]];

/**
 * The rotation of JWT keys, as a pure reducer. Whoever runs it stores the new state, with the recorded events, before it
 * carries out any other effect; a key is sealed on disk before `made`.
 *
 * INVARIANTS, after every step:
 * - at most one key is active and at most one is prepared; what is active or prepared is published
 * - without `force`, a key begins to sign only when it was published long enough for every validator to have it, or when
 *   no other key can sign
 * - a key leaves the bundle only when every token recorded under it has expired, when it is tainted, or by `force`
 * - a tainted key is in no bundle after the step that tainted it
 * - the sequence grows by one whenever the keys of the bundle change, and only then
 * - `retired` is final
 */
export function rotateJwtKeys(state: JwtKeyState, event: JwtKeyEvent, now: Date): Step {
  switch (event.kind) {
    case 'rotate':
      return onRotate(state);
    case 'made':
      return onMade(state, event.key, now);
    case 'activate':
      return onActivate(state, event, now);
    case 'retire':
      return onRetire(state, event, now);
    case 'taint':
      return onTaint(state, event.keyId);
    case 'replace':
      return onReplace(state, now);
    case 'tick':
      return onTick(state, event.evidence, now);
    default:
      return event satisfies never;
  }
}

function onRotate(state: JwtKeyState): Step {
  if (preparedKey(state) !== undefined) {
    return outOfOrder(
      state,
      'a new JWT key is prepared already',
      'use `countersign ca activate --jwt` first',
    );
  }
  if (publishedJwtKeys(state).length >= maxPublishedJwtKeys) {
    return outOfOrder(
      state,
      `${maxPublishedJwtKeys} JWT keys are published`,
      'use `countersign ca retire --jwt` on the old ones first',
    );
  }
  return [state, [make]];
}

function onMade(state: JwtKeyState, key: MadeJwtKey, now: Date): Step {
  // A repeated event is no second key.
  if (state.slots.some(({ keyId }) => keyId === key.keyId)) return [state, []];
  if (preparedKey(state) !== undefined) {
    return outOfOrder(state, 'the key was made for a state that is over', 'see `countersign ca status`');
  }
  const isFirst = state.slots.length === 0;
  const slot: JwtSlot = { ...key, state: 'prepared', publishedAt: now, activatedAt: null, stoppedAt: null };
  const sequence = state.sequence + 1;
  const grown = { slots: [...state.slots, slot], sequence };
  const effects: JwtKeyEffect[] = [
    record(isFirst ? 'created' : 'prepared', key.keyId),
    { kind: 'publish', sequence },
  ];
  if (jwtSignerOf(state) !== undefined) return [grown, effects];
  // Nothing can be signed without it, so there is nothing to wait for.
  const [after, more] = signWith(grown, slot, isFirst ? null : ['activated', nothingElse], now);
  return [after, [...effects, ...more]];
}

function onActivate(
  state: JwtKeyState,
  { evidence, force }: Extract<JwtKeyEvent, { kind: 'activate' }>,
  now: Date,
): Step {
  const slot = preparedKey(state);
  if (slot === undefined) {
    return outOfOrder(state, 'no new JWT key is prepared', 'use `countersign ca rotate --jwt` first');
  }
  const from = provenFrom(slot, evidence);
  if (force) return signWith(state, slot, ['forced', publishedSince(slot)], now);
  if (evidence.doubt !== null) return unproven(state, evidence.doubt);
  if (from > now) {
    return unproven(
      state,
      `a validator may not have the new JWT key before ${from.toISOString()}: none confirms that it has`,
    );
  }
  return signWith(state, slot, ['activated', publishedSince(slot)], now);
}

function onRetire(
  state: JwtKeyState,
  { evidence, force }: Extract<JwtKeyEvent, { kind: 'retire' }>,
  now: Date,
): Step {
  const old = state.slots.filter((slot) => slot.state === 'retiring');
  if (old.length === 0) {
    return outOfOrder(
      state,
      'no old JWT key is left to retire',
      'use `countersign ca activate --jwt` on a new one first',
    );
  }
  const last = new Date(Math.max(...old.map((slot) => unusedFrom(slot, evidence).getTime())));
  if (force) return withdraw(state, old, 'forced', expiredSince(last));
  if (evidence.doubt !== null) return unproven(state, evidence.doubt);
  if (last > now) {
    return unproven(state, `tokens of an old JWT key may be valid until ${last.toISOString()}`);
  }
  return withdraw(state, old, 'retired', expiredSince(last));
}

/**
 * Whoever has the key can be anybody until nobody believes it: it leaves the bundle at once, and its tokens die with it.
 * What is signed in its place fails where the new bundle has not arrived, which is the lesser harm.
 */
function onTaint(state: JwtKeyState, keyId: string): Step {
  const slot = state.slots.find((one) => one.keyId === keyId);
  if (slot === undefined) {
    const refusal = { code: 'authority_not_found', why: 'no JWT key of ours has this key id' } as const;
    return [state, [{ kind: 'refuse', refusal }]];
  }
  if (slot.state === 'retired') {
    return outOfOrder(state, 'that JWT key is retired: nobody trusts it', 'see `countersign ca status`');
  }
  const [withdrawn, effects] = withdraw(state, [slot], 'tainted', '');
  // INVARIANT: to withdraw waits for nothing, least of all for a successor that a full disk or a lost file prevents.
  return [withdrawn, slot.state === 'active' ? [...effects, { kind: 'replace' }] : effects];
}

function onReplace(state: JwtKeyState, now: Date): Step {
  if (jwtSignerOf(state) !== undefined) return [state, []];
  const next = preparedKey(state);
  return next === undefined ? [state, [make]] : signWith(state, next, ['activated', nothingElse], now);
}

function onTick(state: JwtKeyState, evidence: JwtEvidence, now: Date): Step {
  // A crash or a full disk came between a tainted key and its successor.
  if (jwtSignerOf(state) === undefined) return onReplace(state, now);
  // INVARIANT: a clock that was moved rotates nothing by itself.
  if (evidence.doubt !== null) return [state, []];
  const over = state.slots.filter((slot) => slot.state === 'retiring' && unusedFrom(slot, evidence) <= now);
  const [rested, effects] = withdraw(state, over, 'retired', 'every token it signed has expired');
  const due = jwtSchedule(rested, evidence).find(
    ({ step, byItselfAt }) => step !== 'retire' && byItselfAt <= now,
  );
  if (due?.step === 'prepare' && publishedJwtKeys(rested).length < maxPublishedJwtKeys) {
    return [rested, [...effects, make]];
  }
  const slot = preparedKey(rested);
  if (due?.step !== 'activate' || slot === undefined) return [rested, effects];
  const [after, more] = signWith(rested, slot, ['activated', publishedSince(slot)], now);
  return [after, [...effects, ...more]];
}

/** Makes a key the one that signs. @param grant null on the first start */
function signWith(
  state: JwtKeyState,
  next: JwtSlot,
  grant: readonly [JwtKeyAction, evidence: string] | null,
  now: Date,
): Step {
  const slots = state.slots.map((slot): JwtSlot => {
    if (slot.keyId === next.keyId) return { ...slot, state: 'active', activatedAt: now };
    return slot.state === 'active' ? { ...slot, state: 'retiring', stoppedAt: now } : slot;
  });
  const recorded = grant === null ? [] : [record(grant[0], next.keyId, grant[1])];
  return [{ ...state, slots }, [...recorded, { kind: 'sign_with', keyId: next.keyId }]];
}

/** Takes keys out of the bundle for good. */
function withdraw(
  state: JwtKeyState,
  gone: readonly JwtSlot[],
  action: JwtKeyAction,
  evidence: string,
): Step {
  if (gone.length === 0) return [state, []];
  const keyIds = gone.map(({ keyId }) => keyId);
  const slots = state.slots.map((slot): JwtSlot =>
    keyIds.includes(slot.keyId) ? { ...slot, state: 'retired' } : slot,
  );
  const sequence = state.sequence + 1;
  return [
    { slots, sequence },
    [
      ...keyIds.map((keyId) => record(action, keyId, evidence)),
      { kind: 'publish', sequence },
      { kind: 'forget', keyIds },
    ],
  ];
}

function preparedKey({ slots }: JwtKeyState): JwtSlot | undefined {
  return slots.find(({ state }) => state === 'prepared');
}

function publishedSince({ publishedAt }: JwtSlot): string {
  return `published since ${publishedAt.toISOString()}`;
}

function expiredSince(last: Date): string {
  return `the last token may be valid until ${last.toISOString()}`;
}

function record(action: JwtKeyAction, keyId: string, evidence = ''): JwtKeyEffect {
  return { kind: 'record', action, keyId, evidence };
}

function unproven(state: JwtKeyState, why: string): Step {
  return [state, [{ kind: 'refuse', refusal: { code: 'rotation_unproven', why } }]];
}

function outOfOrder(state: JwtKeyState, why: string, fix: string): Step {
  return [state, [{ kind: 'refuse', refusal: { code: 'rotation_out_of_order', why, fix } }]];
}

const make: JwtKeyEffect = { kind: 'make' };
const nothingElse = 'no other key can sign';
