import { kubernetesNames, SpiffeId } from '../../spiffe/id.ts';
import { type AnswerRow, type AnswerTable, answerTable } from './answer.ts';
import type { LoggedEvent } from './event-fields.ts';
import { countAll, judgedTypes, type NamedCount, windowOf } from './ports.ts';
import type { Asking } from './question.ts';

/**
 * Callers and services whose calls fared otherwise after a change of a policy than before it, as far as counts tell:
 * denied where they had been allowed, or allowed where they had been denied.
 * @param aroundMs how long before and after it calls are counted
 */
export async function effectOf(
  asking: Asking,
  change: LoggedEvent,
  policy: string,
  aroundMs: number,
): Promise<{ readonly tables: readonly AnswerTable[]; readonly missing: readonly string[] }> {
  if (!asking.may('audit:decisions')) {
    return {
      tables: [],
      missing: ['whose calls fared otherwise: that takes the permission audit:decisions'],
    };
  }
  const at = Date.parse(change.time);
  const count = (fromMs: number, toMs: number) =>
    countAll(asking, ['source', 'destination', 'outcome'], {
      types: judgedTypes,
      ...windowOf({ since: new Date(fromMs), until: new Date(toMs) }),
    });
  const [before, after] = await Promise.all([count(at - aroundMs, at), count(at, at + aroundMs)]);
  const pairs = new Map<string, Pair>();
  const [namespace = ''] = policy.split('/');
  const isMesh = namespace === asking.settings.rootNamespace;
  const take = (counts: readonly NamedCount[], when: 'Before' | 'After'): void => {
    for (const { of, count: calls, lastIndex } of counts) {
      const { source, destination, outcome } = of;
      if (destination === null || destination === undefined) continue;
      if (!isMesh && namespaceOf(destination) !== namespace) continue;
      const key = JSON.stringify([source, destination]);
      const pair = pairs.get(key) ?? { ...nobody, source: source ?? '', destination };
      const field = `${outcome === 'deny' ? 'denied' : 'allowed'}${when}` as const;
      pairs.set(key, { ...pair, [field]: pair[field] + calls, index: Math.max(pair.index, lastIndex) });
    }
  };
  take(before.counts, 'Before');
  take(after.counts, 'After');
  const changed: readonly AnswerRow[] = [...pairs.values()].filter(faresOtherwise).slice(0, maxPairs);
  const missing =
    before.isWhole && after.isWhole ? [] : ['some calls around the change: there are too many to count all'];
  return {
    tables: [
      answerTable('effect', columns, changed, { more: pairs.size > maxPairs && changed.length === maxPairs }),
    ],
    missing: [...missing, 'whether the change is the cause: entries, bans and callers may have changed too'],
  };
}

type Pair = {
  readonly index: number;
  readonly source: string;
  readonly destination: string;
  readonly allowedBefore: number;
  readonly deniedBefore: number;
  readonly allowedAfter: number;
  readonly deniedAfter: number;
};

function faresOtherwise(pair: Pair): boolean {
  const { allowedBefore, deniedBefore, allowedAfter, deniedAfter } = pair;
  const isNewlyDenied = deniedBefore === 0 && deniedAfter > 0 && allowedBefore > 0;
  const isNewlyAllowed = allowedBefore === 0 && allowedAfter > 0 && deniedBefore > 0;
  return isNewlyDenied || isNewlyAllowed;
}

function namespaceOf(id: string): string | undefined {
  try {
    return kubernetesNames(SpiffeId.parse(id))?.namespace;
  } catch {
    return undefined;
  }
}

const nobody = { index: 0, allowedBefore: 0, deniedBefore: 0, allowedAfter: 0, deniedAfter: 0 };
const columns = [
  'index',
  'source',
  'destination',
  'allowedBefore',
  'deniedBefore',
  'allowedAfter',
  'deniedAfter',
];
const maxPairs = 200;
