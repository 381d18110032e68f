import { makeArchive, restoreArchive } from '../../src/store/archive.ts';

// Makes a backup, or restores one, for who ends it in the middle or gives it no room. Prints how it failed.
const [what, from = '', to = ''] = process.argv.slice(2);
const now = new Date();
const expected = { digest: null, verifierKey: null, trustDomain: null };
try {
  await (what === 'backup'
    ? makeArchive({ dataDir: from, target: to, sealingKey: 'refuse', now, version: '1.0.0' })
    : restoreArchive({ from, dataDir: to, expected, now }));
} catch (error) {
  process.stdout.write(String((error as { code?: unknown }).code));
}
