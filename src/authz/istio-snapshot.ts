import { createHash } from 'node:crypto';
import type { SpiffeId } from '../spiffe/id.ts';
import type { IstioMesh } from './istio-request.ts';
import { compileIstioInSteps, type IstioPolicy, istioPolicyOf, type IstioRules } from './istio-rules.ts';
import type { Policy } from './policy.ts';
import { finish, type Steps } from './steps.ts';

/**
 * What applies to destinations as Istio has it, worked out when one is first asked for and shared by those with the same
 * policies. A call then costs time in proportion to the rules that apply to its destination, not to all there are.
 */
export class IstioBook {
  readonly #mesh: IstioMesh;
  readonly #setsOf: (destination: SpiffeId) => Steps<readonly (readonly Policy[])[]>;
  readonly #byDestination = new Map<string, Known>();
  readonly #bySet = new Map<string, Compiled>();
  readonly #inherited: ReadonlyMap<string, Compiled> | undefined;
  readonly #maxRemembered: number;

  /**
   * @param setsOf the policies of each of the workloads that have an ID; one set at least
   * @param previous what was made there of policies that are the same objects is used again; of the same mesh
   * @param maxRemembered destinations; at one more all others are forgotten, to be worked out anew when asked for
   */
  constructor(
    mesh: IstioMesh,
    setsOf: (destination: SpiffeId) => Steps<readonly (readonly Policy[])[]>,
    previous: IstioBook | undefined,
    maxRemembered = 100_000,
  ) {
    this.#mesh = mesh;
    this.#setsOf = setsOf;
    this.#inherited = previous === undefined ? undefined : previous.#bySet;
    this.#maxRemembered = maxRemembered;
  }

  /**
   * The rules for each of the workloads that have an ID, equal ones once. A request does not say which of them it reached:
   * it may pass when it may at all of them.
   */
  rulesFor(destination: SpiffeId): readonly IstioRules[] {
    const known = this.#byDestination.get(destination.text) ?? finish(this.#learn(destination));
    known.unusedFor = 0;
    return known.rules;
  }

  /** Works out what applies to one destination, so that {@link rulesFor} answers at once. */
  *ready(destination: SpiffeId): Steps<void> {
    if (!this.#byDestination.has(destination.text)) yield* this.#learn(destination);
  }

  /** The policies behind {@link rulesFor}, of all of the workloads, sorted by key. */
  policiesFor(destination: SpiffeId): readonly Policy[] {
    const all = new Set(finish(this.#setsOf(destination)).flat());
    return [...all].sort((a, b) => (a.key < b.key ? -1 : 1));
  }

  /** Works out beforehand what `before` was asked about of late. */
  *prepare(before: IstioBook): Steps<void> {
    for (const { destination, unusedFor } of before.#byDestination.values()) {
      yield;
      if (unusedFor >= forgottenAfter || this.#byDestination.has(destination.text)) continue;
      const known = yield* this.#learn(destination);
      known.unusedFor = unusedFor + 1;
    }
  }

  *#learn(destination: SpiffeId): Steps<Known> {
    const rules = new Set<IstioRules>();
    for (const policies of yield* this.#setsOf(destination)) rules.add(yield* this.#compile(policies));
    const known: Known = { destination, rules: [...rules], unusedFor: 0 };
    // Destinations outside the inventory must not fill the memory.
    if (this.#byDestination.size >= this.#maxRemembered) this.#byDestination.clear();
    this.#byDestination.set(destination.text, known);
    return known;
  }

  *#compile(policies: readonly Policy[]): Steps<IstioRules> {
    const set = createHash('sha256')
      .update(policies.map(({ key }) => key).join('\n'))
      .digest('base64');
    const earlier = this.#bySet.get(set) ?? this.#inherited?.get(set);
    const compiled = earlier?.policies.every((policy, i) => policy === policies[i])
      ? earlier
      : { policies, rules: yield* compileIstioInSteps(this.#mesh, readEach(policies)) };
    this.#bySet.set(set, compiled);
    return compiled.rules;
  }
}

/** Each when its turn comes, so that it is part of a step. */
function* readEach(policies: readonly Policy[]): Generator<IstioPolicy, void> {
  for (const policy of policies) yield istioPolicyOf(policy);
}

type Compiled = { readonly policies: readonly Policy[]; readonly rules: IstioRules };
/** A destination that was asked about, and for how many snapshots nobody asked again. */
type Known = { readonly destination: SpiffeId; readonly rules: readonly IstioRules[]; unusedFor: number };

const forgottenAfter = 16;
