import { type CountGroup, type CountPage, maxCountGroups } from '../audit/count.ts';

/** Adds up, by values. Groups beyond the most are counted together. */
export type Tally = {
  readonly add: (more: TallyItem) => void;
  /** Counts what was counted without something that is asked of it, whether or not it is in a group. */
  readonly fold: (more: Pick<TallyItem, 'count' | 'records'>) => void;
  readonly result: () => Pick<CountPage, 'groups' | 'beyond'>;
  readonly folded: () => CountPage['beyond'];
};

/** Records that agree in their values. */
export type TallyItem = Omit<CountGroup, 'first' | 'last'> & {
  readonly firstMs: number;
  readonly lastMs: number;
};

export function createTally(): Tally {
  const groups = new Map<string, { -readonly [K in keyof TallyItem]: TallyItem[K] }>();
  const beyond = { count: 0, records: 0 };
  const folded = { count: 0, records: 0 };
  return {
    fold: ({ count, records }) => {
      folded.count += count;
      folded.records += records;
    },
    folded: () => folded,
    add: (more) => {
      const key = JSON.stringify(more.values);
      const group = groups.get(key);
      if (group === undefined && groups.size >= maxCountGroups) {
        beyond.count += more.count;
        beyond.records += more.records;
      } else if (group === undefined) groups.set(key, { ...more });
      else {
        group.count += more.count;
        group.records += more.records;
        group.firstIndex = Math.min(group.firstIndex, more.firstIndex);
        group.lastIndex = Math.max(group.lastIndex, more.lastIndex);
        group.firstMs = Math.min(group.firstMs, more.firstMs);
        group.lastMs = Math.max(group.lastMs, more.lastMs);
      }
    },
    result: () => ({
      groups: [...groups.values()].map(({ firstMs, lastMs, ...group }) => ({
        ...group,
        first: new Date(firstMs),
        last: new Date(lastMs),
      })),
      beyond,
    }),
  };
}
