import { createHash } from 'node:crypto';
import { MeshError, quote } from '../errors.ts';
import { Attachment, type Label, type Workload } from './attachment.ts';
import type { PolicyAction } from './document.ts';
import { splitGlass } from './glass.ts';
import type { SpiffeId, TrustDomain } from '../spiffe/id.ts';
import { IstioBook } from './istio-snapshot.ts';
import { type CompiledRule, compileRule, TestBook } from './match.ts';
import type { Policy } from './policy.ts';
import type { PolicyMode } from './policy-mode.ts';
import { buildIndex, buildSideIndex, type RuleFinder } from './rule-index.ts';
import { finish, rulesInStep, type Steps } from './steps.ts';

/** What a snapshot is made of. */
export type SnapshotInput = {
  /** The mesh revision; decisions carry it. */
  readonly revision: number;
  readonly trustDomain: TrustDomain;
  /** Policies of this namespace apply to every namespace. */
  readonly rootNamespace: string;
  /** With distinct keys. */
  readonly policies: readonly Policy[];
  readonly workloads: readonly Workload[];
  /** How they are read; `strict` when left out. */
  readonly mode?: PolicyMode;
  /** Whether a provider that a CUSTOM policy names is taken to have said yes. False when left out: such a call is denied. */
  readonly providersAnswer?: boolean;
  /** The snapshot before this one: what was compiled there for policies that are the same objects is used again. */
  readonly previous?: Snapshot;
};

/** The policies that apply to one destination, ready to be searched. */
export class Applied {
  /** Sorted by key. */
  readonly policies: readonly Policy[];
  /** Enforced, in the order of their ranks; break-glass grants are among them. */
  readonly allowRules: readonly CompiledRule[];
  readonly denyRules: readonly CompiledRule[];
  readonly customRules: readonly CompiledRule[];
  readonly deny: RuleFinder;
  readonly allow: RuleFinder;
  readonly custom: RuleFinder;
  readonly audit: RuleFinder;
  /**
   * Break-glass grants, and the DENY rules that they outweigh; null when no grant applies. INVARIANT: then `deny` has all
   * DENY rules; else it has only those that nobody lifts. `allow` has no grants.
   */
  readonly glass: { readonly grants: RuleFinder; readonly liftable: RuleFinder } | null;
  /** Whether a policy that decides anything applies: none on trial, and none that only marks calls. */
  readonly isGoverned: boolean;
  /** Null when none is on trial; null in it for an action of which none is. */
  readonly onTrial: Readonly<Record<'ALLOW' | 'DENY', RuleFinder | null>> | null;
  #near: readonly RuleFinder[] | undefined;

  private constructor(parts: AppliedParts) {
    this.policies = parts.policies;
    this.allowRules = parts.allowRules;
    this.denyRules = parts.denyRules;
    this.customRules = parts.customRules;
    this.deny = parts.deny;
    this.allow = parts.allow;
    this.custom = parts.custom;
    this.audit = parts.audit;
    this.glass = parts.glass;
    this.isGoverned = this.policies.some(governs);
    this.onTrial = parts.onTrial;
  }

  static *compile(
    policies: readonly Policy[],
    rulesOf: (policy: Policy) => Steps<readonly CompiledRule[]>,
  ): Steps<Applied> {
    const { enforced, tried } = yield* sortRules(policies, rulesOf);
    const isTried = (action: PolicyAction): boolean =>
      policies.some((policy) => policy.dryRun && policy.action === action);
    const onTrial = {
      ALLOW: isTried('ALLOW') ? yield* buildIndex(tried.ALLOW) : null,
      DENY: isTried('DENY') ? yield* buildIndex(tried.DENY) : null,
    };
    const { grants, liftable, allow, deny } = splitGlass(enforced.ALLOW, enforced.DENY);
    return new Applied({
      policies,
      allowRules: enforced.ALLOW,
      denyRules: enforced.DENY,
      customRules: enforced.CUSTOM,
      deny: yield* buildIndex(deny),
      allow: yield* buildIndex(allow),
      glass:
        grants.length === 0
          ? null
          : { grants: yield* buildIndex(grants), liftable: yield* buildIndex(liftable) },
      custom: yield* buildIndex(enforced.CUSTOM),
      audit: yield* buildIndex(enforced.AUDIT),
      onTrial: onTrial.ALLOW === null && onTrial.DENY === null ? null : onTrial,
    });
  }

  /** Finders that lead to rules of which one side fits a request; made at the first denial, or beforehand. */
  get near(): readonly RuleFinder[] {
    return this.#near ?? finish(this.prepareNear());
  }

  *prepareNear(): Steps<readonly RuleFinder[]> {
    if (this.#near !== undefined) return this.#near;
    const from = yield* buildSideIndex(this.allowRules, 'from');
    const to = yield* buildSideIndex(this.allowRules, 'to');
    this.#near ??= [from, to];
    return this.#near;
  }
}

type AppliedParts = Omit<Applied, 'isGoverned' | 'near' | 'prepareNear'>;

/** What decides calls to a destination. */
export type AppliedRules = Pick<Applied, 'isGoverned' | 'allowRules' | 'denyRules' | 'customRules'>;

function governs({ dryRun, action }: Policy): boolean {
  return !dryRun && action !== 'AUDIT';
}

type RulesByAction = Readonly<Record<PolicyAction, CompiledRule[]>>;

function* sortRules(
  policies: readonly Policy[],
  rulesOf: (policy: Policy) => Steps<readonly CompiledRule[]>,
): Steps<{ readonly enforced: RulesByAction; readonly tried: RulesByAction }> {
  const enforced: RulesByAction = { ALLOW: [], DENY: [], AUDIT: [], CUSTOM: [] };
  const tried: RulesByAction = { ALLOW: [], DENY: [], AUDIT: [], CUSTOM: [] };
  for (const [i, policy] of policies.entries()) {
    if (i % rulesInStep === 0) yield;
    const rules = (policy.dryRun ? tried : enforced)[policy.action];
    for (const rule of yield* rulesOf(policy)) rules.push(rule);
  }
  return { enforced, tried };
}

/**
 * All policies at one revision. Nothing in it changes; what applies to a destination is worked out when it is first
 * asked for, or before that by {@link Snapshot.prepare}, and shared by destinations with the same policies.
 */
export class Snapshot {
  readonly revision: number;
  readonly trustDomain: TrustDomain;
  readonly providersAnswer: boolean;
  readonly mode: PolicyMode;
  /** What Istio would make of the same policies: what decides in that mode. */
  readonly istio: IstioBook;
  readonly #byKey: Map<string, Policy>;
  readonly #attachment: Attachment;
  readonly #firstOrdinals: Map<Policy, number>;
  readonly #rules: Map<Policy, readonly CompiledRule[]>;
  readonly #inherited: ReadonlyMap<string, Applied> | undefined;
  readonly #byDestination: Map<string, Known>;
  readonly #bySet: Map<string, Applied>;

  constructor(input: SnapshotInput | SameSnapshot) {
    this.revision = input.revision;
    this.mode = input.mode ?? 'strict';
    if ('unchanged' in input) {
      const { unchanged } = input;
      this.trustDomain = unchanged.trustDomain;
      this.providersAnswer = unchanged.providersAnswer;
      this.istio = unchanged.istio;
      this.#byKey = unchanged.#byKey;
      this.#attachment = unchanged.#attachment;
      this.#firstOrdinals = unchanged.#firstOrdinals;
      this.#rules = unchanged.#rules;
      this.#inherited = unchanged.#inherited;
      this.#byDestination = unchanged.#byDestination;
      this.#bySet = unchanged.#bySet;
      return;
    }
    this.trustDomain = input.trustDomain;
    this.providersAnswer = input.providersAnswer ?? false;
    this.#byKey = new Map();
    this.#firstOrdinals = new Map();
    this.#rules = new Map();
    this.#byDestination = new Map();
    this.#bySet = new Map();
    const policies = [...input.policies].sort((a, b) => (a.key < b.key ? -1 : 1));
    let ordinal = 0;
    for (const [i, policy] of policies.entries()) {
      if (policies[i - 1]?.key === policy.key) {
        throw new MeshError('policy_invalid', `there are two policies ${quote(policy.key)}`, {
          place: policy.place,
          fix: 'rename one of them',
        });
      }
      this.#byKey.set(policy.key, policy);
      this.#firstOrdinals.set(policy, ordinal);
      ordinal += policy.rules.length;
    }
    this.#inherited = input.previous === undefined ? undefined : input.previous.#bySet;
    this.#attachment = new Attachment(policies, input);
    const { trustDomain, rootNamespace } = input;
    // The proxy has normalized the path already, as its configuration says.
    const mesh = { trustDomains: [trustDomain.name], rootNamespace, pathNormalization: 'NONE' } as const;
    this.istio = new IstioBook(mesh, (id) => this.#attachment.setsOf(id), input.previous?.istio);
  }

  /** The same policies and workloads at another revision, at no cost: all that was worked out is shared. */
  at(revision: number, mode: PolicyMode = this.mode): Snapshot {
    return new Snapshot({ revision, mode, unchanged: this });
  }

  /** The policy of a key, `namespace/name`. */
  policy(key: string): Policy | undefined {
    return this.#byKey.get(key);
  }

  /**
   * What applies to a destination of our trust domain; nothing applies to any other.
   * @throws MeshError `policy_mode_inexact` in Istio mode, where `istio` decides
   */
  appliedTo(destination: SpiffeId): Applied {
    this.#demandStrict();
    const known =
      this.#byDestination.get(destination.text) ?? this.#remember(finish(this.#learn(destination)));
    known.unusedFor = 0;
    return known.applied;
  }

  /**
   * The rules of {@link Snapshot.appliedTo}, not ready to be searched. Nothing is kept of it: whoever asks about all
   * destinations must not fill the memory with indexes of them.
   * @throws MeshError `policy_mode_inexact` in Istio mode
   */
  *rulesFor(destination: SpiffeId): Steps<AppliedRules> {
    this.#demandStrict();
    const known = this.#byDestination.get(destination.text);
    if (known !== undefined) return known.applied;
    const policies = yield* this.#policiesOf(destination);
    const { enforced } = yield* sortRules(policies, (policy) => this.#rulesOf(policy));
    const { ALLOW: allowRules, DENY: denyRules, CUSTOM: customRules } = enforced;
    return { isGoverned: policies.some(governs), allowRules, denyRules, customRules };
  }

  /** The labels that all workloads of an ID carry: what a policy must select by to apply to them. */
  sharedLabels(destination: SpiffeId): ReadonlyMap<string, string> {
    return this.#attachment.sharedLabels(destination);
  }

  /** Whether an ALLOW policy that selects so would apply to another ID of the inventory than that one. */
  reachesOthers(destination: SpiffeId, namespace: string, selector: readonly Label[]): boolean {
    return this.#attachment.reachesOthers(destination, namespace, selector);
  }

  /** Works out what applies to one destination, so that {@link Snapshot.appliedTo} and a denial have nothing left to do. */
  *ready(destination: SpiffeId): Steps<void> {
    if (this.mode === 'istio') {
      yield* this.istio.ready(destination);
      return;
    }
    const known = this.#byDestination.get(destination.text);
    const { applied } = known ?? this.#remember(yield* this.#learn(destination));
    yield* applied.prepareNear();
  }

  /**
   * Works out beforehand what applies to the destinations that calls go to: to those that `before` was asked about, or
   * one of the few snapshots before it. Run to its end before this snapshot takes the place of the other, it leaves
   * nothing to do for the first call.
   */
  *prepare(before: Snapshot): Steps<void> {
    if (this.mode === 'istio') {
      yield* this.istio.prepare(before.istio);
      return;
    }
    // Those asked about meanwhile are met too.
    for (const { destination, unusedFor } of before.#byDestination.values()) {
      yield;
      if (unusedFor >= forgottenAfter || this.#byDestination.has(destination.text)) continue;
      const known = this.#remember(yield* this.#learn(destination));
      known.unusedFor = unusedFor + 1;
      yield* known.applied.prepareNear();
    }
  }

  /** INVARIANT: nobody answers in Istio mode by rules that were compiled for strict mode. */
  #demandStrict(): void {
    if (this.mode !== 'strict') throw inexactInIstioMode();
  }

  #remember(known: Known): Known {
    // Destinations outside the inventory must not fill the memory.
    if (this.#byDestination.size >= maxRemembered) this.#byDestination.clear();
    this.#byDestination.set(known.destination.text, known);
    return known;
  }

  *#policiesOf(destination: SpiffeId): Steps<readonly Policy[]> {
    return destination.memberOf(this.trustDomain) ? yield* this.#attachment.policiesOf(destination) : [];
  }

  *#learn(destination: SpiffeId): Steps<Known> {
    const policies = yield* this.#policiesOf(destination);
    yield;
    const set = createHash('sha256')
      .update(policies.map(({ key }) => key).join('\n'))
      .digest('base64');
    const made = this.#bySet.get(set) ?? this.#inherit(set, policies) ?? (yield* this.#compile(policies));
    // Somebody may have asked while this one was in the making.
    const applied = this.#bySet.get(set) ?? made;
    this.#bySet.set(set, applied);
    return { destination, applied, unusedFor: 0 };
  }

  /** Ranks differ between snapshots, but not their order among the same policies. */
  #inherit(set: string, policies: readonly Policy[]): Applied | undefined {
    const earlier = this.#inherited?.get(set);
    return earlier?.policies.every((policy, i) => policy === policies[i]) ? earlier : undefined;
  }

  #compile(policies: readonly Policy[]): Steps<Applied> {
    const book = new TestBook();
    return Applied.compile(policies, (policy) => this.#rulesOf(policy, book));
  }

  *#rulesOf(policy: Policy, book?: TestBook): Steps<readonly CompiledRule[]> {
    const known = this.#rules.get(policy);
    if (known !== undefined) return known;
    const first = this.#firstOrdinals.get(policy) ?? 0;
    const rules: CompiledRule[] = [];
    for (const [index, rule] of policy.rules.entries()) {
      // A policy may have hundreds.
      if (index % rulesInStep === rulesInStep - 1) yield;
      rules.push(compileRule(policy, rule, first + index, book));
    }
    this.#rules.set(policy, rules);
    return rules;
  }
}

type SameSnapshot = {
  readonly revision: number;
  readonly mode: PolicyMode;
  readonly unchanged: Snapshot;
};

/** What is answered in Istio mode to all who ask for more than one call as a proxy forwards it. */
export function inexactInIstioMode(): MeshError {
  return new MeshError('policy_mode_inexact', 'this question has no exact answer in Istio mode', {
    fix: 'ask about one call with countersign authz check',
  });
}

/** A destination that was asked about, and for how many snapshots nobody asked again. */
type Known = { readonly destination: SpiffeId; readonly applied: Applied; unusedFor: number };

const maxRemembered = 100_000;
// Edits come in bursts: a destination that was not called between two of them is still in use.
const forgottenAfter = 16;

/**
 * Compiles policies and inventory into a snapshot. The cost is linear in the policies; labels are matched when a
 * destination is first asked for.
 * @throws MeshError `policy_invalid` when two policies have one key
 */
export function compileSnapshot(input: SnapshotInput): Snapshot {
  return new Snapshot(input);
}
