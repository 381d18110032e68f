import { formatPlace, quote } from '../errors.ts';
import type { TrustDomain } from '../spiffe/id.ts';
import { Attachment, type Workload } from './attachment.ts';
import { type Difference, differences, type Spot, whole } from './differences.ts';
import { cutExcerpt, type Excerpt } from './explain.ts';
import { hazards, type LintRule, misfits } from './lint-hazards.ts';
import { attachingLabels, type Inventory, indexWorld, type LintWorld, namespaceOf } from './lint-world.ts';
import type { Policy, Rule } from './policy.ts';
import { finish, type Steps } from './steps.ts';

/** Something in a policy that is worth a look. */
export type Finding = {
  /** Stable: a heading of docs/policy-lint.md. */
  readonly code: string;
  readonly severity: 'error' | 'warning' | 'note';
  /** `namespace/name`; empty when it is of no policy. */
  readonly policy: string;
  /** One sentence: lower case, no full stop. */
  readonly why: string;
  readonly fix: string;
  /** `file:line:column`; empty when it is of no policy. */
  readonly place: string;
  readonly at: Excerpt | null;
};

/** What was found. */
export type LintReport = {
  /** The first of them, errors before warnings before notes, then by policy and place. */
  readonly findings: readonly Finding[];
  /** How many there are of each severity, those left out included. */
  readonly errors: number;
  readonly warnings: number;
  /** Whether they are among the findings or not. */
  readonly notes: number;
  /** How many are not among the findings though their severity is. */
  readonly omitted: number;
};

export type LintInput = {
  readonly policies: readonly Policy[];
  /** Null when nobody knows which there are: what needs them is not looked for. */
  readonly workloads: readonly Workload[] | null;
  readonly trustDomain: TrustDomain | null;
  readonly rootNamespace: string;
  /** Whether to show notes: what Istio would read differently. */
  readonly notes: boolean;
  /** The most findings to answer with. */
  readonly limit: number;
};

/** Looks at policies for what is easily got wrong, for what does not fit the workloads, and for what Istio reads otherwise. */
export function lintPolicies(input: LintInput): LintReport {
  return finish(lintInSteps(input));
}

/** The same in small steps. */
export function* lintInSteps(input: LintInput): Steps<LintReport> {
  const policies = [...input.policies].sort((a, b) => (a.key < b.key ? -1 : 1));
  const world = yield* indexWorld(policies, input.workloads, input);
  const counts = { error: 0, warning: 0, note: 0 };
  const found: Found[] = [];
  const add = (one: Found): void => {
    counts[one.rule.severity] += 1;
    const isShown = input.notes || one.rule.severity !== 'note';
    // Enough of each severity to fill the answer with.
    if (isShown && counts[one.rule.severity] <= input.limit) found.push(one);
  };
  const repeated = createRepeats();
  for (const policy of policies) {
    // Some are compared with thousands of workloads.
    yield;
    for (const rule of rules) for (const spot of rule.find(policy, world)) add({ rule, policy, spot });
    for (const rule of policy.rules) {
      const earlier = repeated(policy, rule);
      if (earlier === undefined) continue;
      const said = { ...ofRepeated, why: `${ofRepeated.why}: ${earlier}` };
      add({ rule: said, policy, spot: { place: rule.place, length: 1 } });
    }
  }
  yield* lintWorkloads(policies, world, add);
  const sorted = found.sort((a, b) => order.indexOf(a.rule.severity) - order.indexOf(b.rule.severity));
  const findings: Finding[] = [];
  for (const one of sorted.slice(0, input.limit)) {
    yield;
    findings.push(findingOf(one));
  }
  const all = counts.error + counts.warning + (input.notes ? counts.note : 0);
  return {
    findings,
    errors: counts.error,
    warnings: counts.warning,
    notes: counts.note,
    omitted: all - findings.length,
  };
}

type Found = {
  readonly rule: Omit<LintRule, 'find'>;
  readonly policy: Policy | null;
  readonly spot: Spot | null;
};

function findingOf({ rule: { code, severity, why, fix }, policy, spot }: Found): Finding {
  return {
    code,
    severity,
    policy: policy?.key ?? '',
    why: spot?.value === undefined ? why : `${why}: ${quote(spot.value)}`,
    fix,
    place: spot === null ? '' : formatPlace(spot.place),
    at: policy === null || spot === null ? null : cutExcerpt(policy, spot.place, spot.length),
  };
}

/** A difference, as lint says it. */
export function noteOf({ code, about, istio, strict }: Omit<Difference, 'find'>): Omit<LintRule, 'find'> {
  const plain = (text: string): string => text.replaceAll('`', '');
  return {
    code,
    severity: 'note',
    why: `read otherwise by Istio: ${plain(about)}; Istio: ${plain(istio)}; strict mode: ${plain(strict)}`,
    fix: 'see docs/policy.md, Strict mode',
  };
}

const order = ['error', 'warning', 'note'] as const;

const rules: readonly LintRule[] = [
  ...hazards,
  ...misfits,
  ...differences.flatMap((difference): readonly LintRule[] => {
    const { find } = difference;
    return typeof find === 'string' ? [] : [{ ...noteOf(difference), find }];
  }),
];

const ofRepeated: Omit<LintRule, 'find'> = {
  code: 'rule_repeated',
  severity: 'warning',
  why: 'another rule for the same workloads says the very same',
  fix: 'remove one of the two',
};

/** Names the rule that said the same before, if one did. */
function createRepeats(): (policy: Policy, rule: Rule) => string | undefined {
  const seen = new Map<string, string>();
  return (policy, { name, from, to, when }) => {
    const { namespace, action, provider, dryRun, selector, targetRefs, terms } = policy;
    const texts = [from, to, when].map((entries) =>
      entries.map(({ predicates }) => predicates.map(({ field, values }) => [field, values])),
    );
    const key = JSON.stringify([
      namespace,
      action,
      provider,
      dryRun,
      [terms.liftable, terms.breakGlass !== null],
      [...selector].sort(),
      targetRefs,
      texts,
    ]);
    const earlier = seen.get(key);
    if (earlier === undefined) seen.set(key, name);
    return earlier;
  };
}

/** What no policy says by itself: workloads that nothing allows calls to. */
function* lintWorkloads(
  policies: readonly Policy[],
  { inventory, rootNamespace }: LintWorld,
  add: (one: Found) => void,
): Steps<void> {
  if (inventory === null) return;
  const attachment = new Attachment(policies, { rootNamespace, workloads: inventory.workloads });
  const bare: string[] = [];
  const denied = new Map<string, { readonly first: Policy; readonly ids: string[] }>();
  const likenessOf = createLikeness(policies, inventory);
  const deciding = new Map<string, readonly Policy[]>();
  for (const [text, [workload]] of inventory.byId) {
    yield;
    if (workload === undefined) continue;
    const likeness = likenessOf(text);
    const known =
      deciding.get(likeness) ??
      (yield* attachment.policiesOf(workload.id)).filter(
        ({ dryRun, action }) => !dryRun && action !== 'AUDIT',
      );
    const [first] = known;
    const allow = known.find(({ action }) => action === 'ALLOW');
    deciding.set(likeness, first === undefined ? [] : [first, ...(allow === undefined ? [] : [allow])]);
    if (first === undefined) bare.push(text);
    else if (allow === undefined) {
      const group = denied.get(first.key) ?? { first, ids: [] };
      denied.set(first.key, group);
      group.ids.push(text);
    }
  }
  if (bare.length > 0) {
    const why = `no policy applies to ${nameSome(bare)}: strict mode denies every call there, and Istio allows it`;
    const note = { code: 'istio_no_policy', severity: 'note', why, fix: 'write an ALLOW policy' } as const;
    add({ rule: note, policy: null, spot: null });
  }
  for (const { first, ids } of denied.values()) {
    const why = `no ALLOW policy applies to ${nameSome(ids)}: in strict mode every call there is denied`;
    const rule = { code: 'only_deny', severity: 'warning', why, fix: 'write an ALLOW policy' } as const;
    add({ rule, policy: first, spot: whole(first) });
  }
}

/** What IDs have in common to which the same policies apply: where their workloads are, and the labels that matter. */
function createLikeness(policies: readonly Policy[], { byId }: Inventory): (id: string) => string {
  const attaching = attachingLabels(policies);
  return (id) =>
    JSON.stringify(
      (byId.get(id) ?? []).map((workload) => [
        namespaceOf(workload) ?? null,
        Object.entries(workload.labels)
          .filter(([name]) => attaching.has(name))
          .sort(([a], [b]) => (a < b ? -1 : 1)),
      ]),
    );
}

function nameSome(ids: readonly string[]): string {
  const more = ids.length - maxNamed;
  return `${ids.slice(0, maxNamed).join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
}

const maxNamed = 3;
