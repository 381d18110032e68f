import { MeshError } from '../errors.ts';
import { inspectChain } from '../spiffe/inspect-chain.ts';
import { decodePem } from '../spiffe/pem.ts';
import type { FilesOutput } from './files-configuration.ts';
import { claimDirectory } from './files-directory.ts';
import {
  currentVersion,
  holdsFiles,
  hookedVersion,
  keepVersions,
  type NewFile,
  noteHooked,
  readCurrent,
  removeFiles,
  writeVersion,
} from './files-version.ts';
import { demandPair, holdsKey, textOf } from './svid-files.ts';
import type { FetchedSvid } from './svid-stream.ts';

/** The certificate that lies in the files. */
export type LaidCertificate = {
  readonly spiffeId: string | null;
  readonly serial: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** The directory of one output, held by this process. */
export type FilesTarget = {
  /** What lies there, as far as it is known. */
  readonly certificate: () => LaidCertificate | undefined;
  /**
   * Lays a verified certificate, its key and bundle down.
   * @throws MeshError `svid_invalid` when it breaks a rule; as writeVersion and claimDirectory do
   */
  readonly put: (svid: FetchedSvid, now: Date) => 'written' | 'unchanged';
  /** Whether the readers of the files have not been told of what lies there, by this process or an earlier one. */
  readonly isHookDue: () => boolean;
  /** They have been told: whatever lay there before goes. */
  readonly noteHooked: () => void;
  readonly clear: () => void;
  readonly release: () => void;
};

/**
 * Takes the directory of an output.
 * @throws MeshError `file_permissions`, `directory_in_use`, `store_unavailable`
 */
export function openTarget(output: FilesOutput): FilesTarget {
  const { directory: path, gid, hook } = output;
  let directory = claimDirectory(path, gid);
  let certificate = readLaid();
  /** What was swapped under the feet of this process is looked at as if it were new. */
  const inPlace = (): typeof directory => {
    if (directory.isInPlace()) return directory;
    const next = claimDirectory(path, gid);
    directory.release();
    directory = next;
    return next;
  };
  const sweep = (): void => {
    const hooked = hook === null ? undefined : hookedVersion(directory);
    keepVersions(directory, [currentVersion(directory), hooked]);
  };
  return {
    certificate: () => certificate,
    put: (svid, now) => {
      const laid = verify(svid, now);
      const files = newFiles(output, svid);
      const held = inPlace();
      const result = holdsFiles(held, files) ? 'unchanged' : 'written';
      if (result === 'written') writeVersion(held, files);
      certificate = laid;
      sweep();
      return result;
    },
    isHookDue: () => {
      const version = currentVersion(directory);
      return hook !== null && version !== undefined && version !== hookedVersion(directory);
    },
    noteHooked: () => {
      const version = currentVersion(directory);
      if (version !== undefined) noteHooked(directory, version);
      sweep();
    },
    clear: () => {
      certificate = undefined;
      removeFiles(inPlace());
    },
    release: () => directory.release(),
  };

  /** Left by an earlier process: its end is watched even if nobody ever answers this one. */
  function readLaid(): LaidCertificate | undefined {
    const [, name] =
      output.files.find(([content]) => content === 'certificate' || content === 'combined') ?? [];
    if (name === undefined || currentVersion(directory) === undefined) return undefined;
    try {
      const [pem = ''] = readCurrent(directory, name).split(/(?=-----BEGIN [A-Z ]*PRIVATE KEY)/);
      return certificateOf(decodePem(pem, 'CERTIFICATE', { maxBytes: 4_194_304 }));
    } catch {
      return undefined;
    }
  }
}

/** What breaks a rule is never laid where a service would load it. */
function verify(svid: FetchedSvid, at: Date): LaidCertificate {
  demandPair(svid);
  const { broken } = inspectChain(svid.certificates, { authorities: svid.authorities, at });
  if (broken.length > 0) {
    const rules = broken.map(({ rule }) => rule).join(', ');
    throw new MeshError('svid_invalid', `the server sent a certificate that breaks ${rules}`, {
      fix: 'compare the clocks of both machines; countersign inspect svid explains the rules',
    });
  }
  return certificateOf(svid.certificates);
}

function certificateOf(certificates: readonly Uint8Array[]): LaidCertificate {
  const [leaf] = inspectChain(certificates.slice(0, 1)).facts.certificates;
  if (leaf === undefined) throw new MeshError('svid_invalid', 'there is no certificate');
  const { spiffeId, serial, notBefore, notAfter } = leaf;
  return { spiffeId, serial, notBefore, notAfter };
}

function newFiles({ files, uid, gid, keyMode }: FilesOutput, svid: FetchedSvid): readonly NewFile[] {
  return files.map(([content, name]) => ({
    name,
    text: textOf(svid, content),
    mode: holdsKey(content) ? keyMode : 0o644,
    uid,
    gid,
  }));
}
