import type { Clock } from './clock.ts';
import { MeshError, quote } from './errors.ts';
import type { Log } from './log.ts';
import { createKubernetesAttestor, type ProveKubernetes } from './node/kubernetes-attestor.ts';
import { readClusters } from './node/kubernetes-cluster.ts';
import { readListFile } from './store/key-files.ts';
import { maxDocumentBytes } from './yaml.ts';

/**
 * Takes tokens of the Kubernetes clusters that a file names.
 * @param file YAML, or null for none
 * @throws MeshError `config_invalid`, `file_missing`, and with its place what is wrong in the file
 */
export function openClusters(
  file: string | null,
  clock: Clock,
  log: Log,
): { readonly proveKubernetes?: ProveKubernetes } {
  if (file === null) return {};
  const clusters = readClusters({ file, text: readListFile(file, maxDocumentBytes) });
  if (clusters.size === 0) {
    throw new MeshError('config_invalid', `nodeClustersFile ${quote(file)} names no cluster`, {
      fix: 'add a document of kind KubernetesCluster, or leave the option out',
    });
  }
  const warn = (message: string, detail: object): void => log.warn(detail, message);
  return { proveKubernetes: createKubernetesAttestor({ clusters, clock, warn }) };
}
