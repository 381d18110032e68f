// Run as a process of its own: sets a data directory up for a root that is kept elsewhere, and dies by SIGKILL at a
// failpoint. Exits with 0 when it came through.
import { type ConfigText, loadConfig } from '../../src/config.ts';
import { importChain, initOfflineRoot } from '../../src/up-hierarchy.ts';

type Task = {
  readonly flags: ConfigText;
  readonly step: 'init' | 'import';
  readonly chain: string;
  readonly failpoint: string;
};

const { flags, step, chain, failpoint } = JSON.parse(process.argv[2] ?? '') as Task;
const config = loadConfig({ flags, environment: {}, file: null, isRoot: false });
const hooks = {
  failpoint: (name: string) => {
    if (name === failpoint) process.kill(process.pid, 'SIGKILL');
  },
};
if (step === 'init') await initOfflineRoot(config, hooks);
else await importChain(config, { file: 'chain.pem', text: chain }, hooks);
