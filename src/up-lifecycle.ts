import type { Clock } from './clock.ts';
import type { Log } from './log.ts';
import type { Store } from './store/store.ts';
import { version } from './version.ts';

type Parts = {
  readonly store: Pick<Store, 'readMeta' | 'commitMeta' | 'recordEvents'>;
  readonly clock: Clock;
};

/** Records that a server starts; the first time after a restore also that it was restored, for which there is much to do. */
export async function recordStart({ store, clock, log }: Parts & { readonly log: Log }): Promise<void> {
  const restored = await store.readMeta('restored');
  if (restored !== null && restored !== '') {
    const { madeAt, size } = JSON.parse(restored) as { madeAt: string; size: number };
    const event = {
      type: 'lifecycle',
      time: clock.now(),
      action: 'restored',
      version,
      backupMadeAt: new Date(madeAt),
      backupSize: size,
    } as const;
    // In one transaction: it is told once.
    await store.commitMeta('restored', '', [event]);
    log.warn(
      { madeAt, size },
      'this data directory was restored from a backup: see docs/backup.md, After a restore',
    );
  }
  await store.recordEvents([{ type: 'lifecycle', time: clock.now(), action: 'started', version }]);
}

export async function recordStop({ store, clock }: Omit<Parts, 'log'>): Promise<void> {
  await store.recordEvents([{ type: 'lifecycle', time: clock.now(), action: 'stopped', version }]);
}
