import type { Snapshot } from '../../authz/snapshot.ts';
import { formatPlace } from '../../errors.ts';
import type { SpiffeId } from '../../spiffe/id.ts';
import { inBreaths } from '../breath.ts';
import { type AnswerTable, answerTable } from './answer.ts';
import { countAll, judgedTypes, type NamedCount, windowOf } from './ports.ts';
import type { Asking } from './question.ts';

/** How often each rule that applies to a service decided a call to it, and which did not at all. */
export async function ruleUseOf(
  asking: Asking,
  snapshot: Snapshot,
  destination: SpiffeId,
  { unused, at }: { readonly unused: number; readonly at: Date | null },
): Promise<{
  readonly says: readonly string[];
  readonly missing: readonly string[];
  readonly tables: readonly AnswerTable[];
}> {
  if (!asking.may('audit:decisions')) {
    return {
      says: [],
      tables: [],
      missing: ['which rules were used: that takes the permission audit:decisions'],
    };
  }
  const until = at ?? asking.now();
  const since = new Date(until.getTime() - unused);
  const { counts, isWhole } = await countAll(asking, ['rule'], {
    types: judgedTypes,
    destination: destination.text,
    ...windowOf({ since, until: at }),
  });
  const byRule = new Map(
    counts.flatMap((count) => (count.of['rule'] === null ? [] : [[ruleOf(count), count]])),
  );
  const applied = await inBreaths(snapshot.rulesFor(destination), asking.breathe);
  const rules = [
    ...(applied?.allowRules ?? []),
    ...(applied?.denyRules ?? []),
    ...(applied?.customRules ?? []),
  ];
  const items = rules.slice(0, maxRules).map(({ rule, policy }) => {
    const use = byRule.get(rule.name);
    return {
      index: use?.lastIndex ?? null,
      rule: rule.name,
      action: policy.action,
      place: formatPlace(rule.place),
      calls: use?.count ?? 0,
      last: use?.last.toISOString() ?? '',
      used: use !== undefined,
    };
  });
  const idle = items.filter(({ used }) => !used).length;
  return {
    says: [`${idle} of the ${rules.length} rules that apply decided no call since ${since.toISOString()}`],
    missing: [
      ...(isWhole ? [] : ['some calls: there are too many to count all']),
      'rules that matched and did not decide: of several the first one is named',
    ],
    tables: [
      answerTable('rules', ['index', 'rule', 'action', 'place', 'calls', 'last', 'used'], items, {
        more: rules.length > maxRules,
      }),
    ],
  };
}

function ruleOf({ of }: NamedCount): string {
  return of['rule'] ?? '';
}

const maxRules = 1_000;
