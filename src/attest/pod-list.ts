import { createJsonItems, type JsonItems } from './json-items.ts';

/** What the kubelet says of one running container and its pod. */
export type ContainerFacts = {
  readonly podUid: string;
  readonly podName: string | undefined;
  readonly namespace: string | undefined;
  readonly serviceAccount: string | undefined;
  readonly nodeName: string | undefined;
  readonly labels: readonly (readonly [key: string, value: string])[];
  readonly containerName: string | undefined;
  /** `sha256:` and 64 hexadecimal digits. */
  readonly imageDigest: string | undefined;
};

/** Running containers by id. `ambiguous` where more than one claims the id. */
export type PodList = ReadonlyMap<string, ContainerFacts | 'ambiguous'>;

/**
 * Reads a PodList (Kubernetes core/v1) as it arrives. Init containers and ephemeral ones count as any other. Only a
 * container that is said to run has facts: one that waits has no process, and one that has ended no living one.
 */
export function createPodListReader(): JsonItems & { readonly list: () => PodList } {
  const list = new Map<string, ContainerFacts | 'ambiguous'>();
  const items = createJsonItems(maxPodBytes, (text) => {
    for (const [id, facts] of readPod(JSON.parse(text))) {
      list.set(id, list.has(id) ? 'ambiguous' : facts);
    }
  });
  return { ...items, list: () => list };
}

function readPod(pod: unknown): readonly (readonly [id: string, ContainerFacts])[] {
  const [metadata, spec, status] = [field(pod, 'metadata'), field(pod, 'spec'), field(pod, 'status')];
  const podUid = text(metadata, 'uid');
  const phase = text(status, 'phase');
  // Init containers run while the pod is pending.
  if (podUid === undefined || (phase !== 'Running' && phase !== 'Pending')) return [];
  const ofPod = {
    podUid,
    podName: text(metadata, 'name'),
    namespace: text(metadata, 'namespace'),
    serviceAccount: text(spec, 'serviceAccountName'),
    nodeName: text(spec, 'nodeName'),
    labels: readLabels(field(metadata, 'labels')),
  };
  const statuses = ['containerStatuses', 'initContainerStatuses', 'ephemeralContainerStatuses'].flatMap(
    (name) => {
      const list = field(status, name);
      return Array.isArray(list) ? (list as unknown[]) : [];
    },
  );
  return statuses.flatMap((container) => {
    const id = /^[a-z0-9.-]{1,32}:\/\/([0-9a-f]{64})$/.exec(text(container, 'containerID') ?? '')?.[1];
    if (id === undefined || !isObject(field(field(container, 'state'), 'running'))) return [];
    return [
      [
        id,
        {
          ...ofPod,
          containerName: text(container, 'name'),
          imageDigest: /(?:^|[@/])(sha256:[0-9a-f]{64})$/.exec(text(container, 'imageID') ?? '')?.[1],
        },
      ] as const,
    ];
  });
}

/** The labels of an object of strings, or none of them when there are more than 128. */
export function readLabels(labels: unknown): readonly (readonly [key: string, value: string])[] {
  if (!isObject(labels)) return [];
  const entries = Object.entries(labels);
  if (entries.length > maxLabels) return [];
  return entries.flatMap(([key, value]) => (typeof value === 'string' ? [[key, value] as const] : []));
}

/** A field of what may be an object. */
export function field(value: unknown, name: string): unknown {
  return isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined;
}

/** A field that is a string with something in it. */
export function text(value: unknown, name: string): string | undefined {
  const found = field(value, name);
  return typeof found === 'string' && found !== '' ? found : undefined;
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const maxLabels = 128;
// etcd takes no object of more than 1.5 MiB; the kubelet adds the status.
const maxPodBytes = 2_097_152;
