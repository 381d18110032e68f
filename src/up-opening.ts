import type { Log } from './log.ts';
import type { Store } from './store/store.ts';

/** Says in the log what opening the store did, and later how the check ended that it left. Readiness tells of damage at once. */
export function reportOpening({ migration, check }: Pick<Store, 'migration' | 'check'>, log: Log): void {
  if (migration !== null) log.warn(migration, 'an earlier version wrote the database; it was copied first');
  void check.ended.then(({ outcome, seconds, damage, cause }) => {
    if (outcome === 'failed') log.error({ cause, seconds }, 'the check of the database has failed');
    else if (damage !== null) log.error({ damage, seconds }, 'entries of the audit log are damaged');
    else if (outcome === 'sound') log.info({ seconds }, 'all of the database was checked, and is sound');
  });
}
