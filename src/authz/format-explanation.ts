import type {
  Excerpt,
  Explanation,
  PolicyOutcome,
  RemedyChange,
  RemedyOutcome,
  RuleOutcome,
} from './explain.ts';
import { show } from './words.ts';

/**
 * An explanation for a terminal, without colours, ending with a line break:
 *
 *     DENY   spiffe://corp/ns/shop/sa/web -> spiffe://corp/ns/pay/sa/db  POST db.pay/charge
 *     reason   no_allow_rule · mesh revision 42
 *     why      no ALLOW rule matched
 *     nearest  pay/db-read rule[0]  4 of 5 conditions matched  pay/db.yaml:31:14
 *                 31 |     methods: [GET]
 *                    |              ^^^^^ the call used POST
 *     to allow  add POST to methods of pay/db-read rule[0]  pay/db.yaml:31:14
 *     policies
 *       ALLOW  pay/db-read
 *         rule[0]  missed  methods (the call used POST)
 */
export function formatExplanation(explanation: Explanation): string {
  const { verdict, reason, why, revision, mode, nearest, decidedAt } = explanation;
  const lines = [
    `${verdict.toUpperCase().padEnd(5)}  ${describeCall(explanation)}`,
    `reason   ${reason} · mesh revision ${revision}${mode === 'istio' ? ' · Istio mode' : ''}`,
    `why      ${nearest === null ? why : 'no ALLOW rule matched'}`,
  ];
  if (decidedAt !== null) {
    lines.push(`rule     ${explanation.rule}  ${decidedAt.place}`, ...drawExcerpt(decidedAt, undefined));
  }
  if (nearest !== null) {
    const { rule, matched, total, at, used } = nearest;
    lines.push(
      `nearest  ${rule}  ${matched} of ${total} conditions matched  ${at.place}`,
      ...drawExcerpt(at, used),
    );
  }
  lines.push(...drawRemedy(explanation.remedy));
  if (explanation.policies.length > 0) lines.push('policies', ...explanation.policies.flatMap(drawPolicy));
  if (explanation.policiesOmitted > 0) lines.push(`  and ${explanation.policiesOmitted} more`);
  return `${lines.join('\n')}\n`;
}

/** The lines of `to allow`; none where nothing would. */
export function drawRemedy(remedy: RemedyOutcome | null): readonly string[] {
  if (remedy === null) return [];
  const { exemptions, edits, policy } = remedy;
  const changes = [...exemptions, ...(edits ?? [])];
  const steps = changes.slice(0, maxChanges).map((one) => `${wordsOf[one.kind](one)}  ${one.at.place}`);
  if (changes.length > maxChanges) steps.push(`and ${changes.length - maxChanges} more changes`);
  if (edits === null && policy !== null) {
    const when = exemptions.length === 0 ? '' : ' once no DENY rule is in the way';
    steps.push(`add a policy for this call alone (--suggest-policy writes it${when})`);
  }
  return steps.map((step, i) => `${i === 0 ? 'to allow' : 'and'.padEnd(8)} ${step}`);
}

const maxChanges = 8;

const wordsOf: Readonly<Record<RemedyChange['kind'], (change: RemedyChange) => string>> = {
  add: ({ values, field, rule }) => `add ${listValues(values)} to ${field} of ${rule}`,
  remove: ({ values, field, rule }) => `remove ${listValues(values)} from ${field} of ${rule}`,
  drop: ({ field, rule }) => `remove ${field} from ${rule}`,
  exempt: ({ values, rule }) =>
    `add to ${rule} when: { key: source.principal, notValues: [${listValues(values)}] }`,
};

function listValues(values: readonly string[] | null): string {
  return values === null ? "the call's own value" : values.map(show).join(', ');
}

function describeCall({ request }: Explanation): string {
  const { source, destination, protocol, method, host, hostPort, path, port } = request;
  const call =
    protocol === 'tcp'
      ? `TCP port ${port === 0 ? 'unknown' : port}`
      : `${show(method)} ${host === '' ? '' : show(host)}${hostPort === null ? '' : `:${hostPort}`}${show(path)}`;
  return `${source ?? '(no certificate)'} -> ${destination}  ${call}`;
}

/** A line of a policy, and below it what the call had there. */
export function drawExcerpt(
  { line, column, length, text }: Excerpt,
  note: string | undefined,
): readonly string[] {
  const number = String(line).padStart(6);
  const drawn = [`         ${number} | ${text}`];
  if (note === undefined || column > text.length) return drawn;
  const under = '^'.repeat(Math.max(1, Math.min(length, text.length - column + 1)));
  return [...drawn, `         ${' '.repeat(number.length)} | ${' '.repeat(column - 1)}${under} ${note}`];
}

function drawPolicy({ policy, action, place, rules }: PolicyOutcome): readonly string[] {
  const head = `  ${action.padEnd(5)}  ${policy}  ${place}`;
  const shown = rules.slice(0, maxRules).map(drawRule);
  if (rules.length === 0) shown.push('    no rules: it allows nothing');
  if (rules.length > maxRules) shown.push(`    and ${rules.length - maxRules} more rules`);
  return [head, ...shown];
}

const maxRules = 16;

function drawRule({ rule, matched, entries }: RuleOutcome): string {
  const name = rule.slice(rule.lastIndexOf(' ') + 1);
  const failed = entries.flatMap(({ entry, predicates }) =>
    predicates
      .filter(({ outcome }) => outcome !== 'matched')
      .map(({ field, used, outcome }) => `${entry} ${field} ${outcome} (${used})`),
  );
  if (matched) {
    const unjudged = failed.filter((text) => text.includes(' inapplicable '));
    return `    ${name}  matched${unjudged.length === 0 ? '' : `: ${unjudged.slice(0, maxFailed).join('; ')}`}`;
  }
  return `    ${name}  missed: ${failed.slice(0, maxFailed).join('; ')}`;
}

const maxFailed = 4;
