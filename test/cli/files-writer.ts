import { readFileSync } from 'node:fs';
import type { FilesOutput } from '../../src/cli/files-configuration.ts';
import { openTarget } from '../../src/cli/files-target.ts';
import type { FetchedSvid } from '../../src/cli/svid-stream.ts';

// A process that swaps as fast as it can until it is killed: `node files-writer.ts <output> <certificates>`.
const [output, svids] = process.argv.slice(2).map((text) => text);
const target = openTarget(JSON.parse(output ?? '') as FilesOutput);
const held = JSON.parse(readFileSync(svids ?? '', 'utf8')) as {
  certificates: string[];
  privateKeyPem: string;
  authorities: string[];
}[];
const decode = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, 'base64'));
const all: FetchedSvid[] = held.map(({ certificates, privateKeyPem, authorities }) => ({
  certificates: certificates.map(decode),
  privateKeyPem,
  authorities: authorities.map(decode),
}));
process.stdout.write('ready\n');
for (let i = 0; ; i++) {
  try {
    target.put(all[i % all.length] as FetchedSvid, new Date());
    if (i % 2 === 0) target.noteHooked();
  } catch (error) {
    process.stdout.write(`${(error as { code?: string }).code ?? String(error)}\n`);
  }
  await new Promise((resolve) => setTimeout(resolve, 1));
}
