/** A container as a kubelet lists it. */
export type PodContainer = {
  readonly id: string;
  readonly name?: string;
  readonly runtime?: string;
  readonly imageId?: string;
  readonly state?: Readonly<Record<string, unknown>>;
  readonly kind?: 'containerStatuses' | 'initContainerStatuses' | 'ephemeralContainerStatuses';
};

export type PodOptions = {
  readonly uid: string;
  readonly containers: readonly PodContainer[];
  readonly name?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly phase?: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
  readonly spec?: Readonly<Record<string, unknown>>;
};

export const imageDigest = `sha256:${'1e'.repeat(32)}`;

/** A pod with all that a kubelet says of one. */
export function podOf(options: PodOptions): Record<string, unknown> {
  const {
    uid,
    containers,
    name = 'web-6658cb9566-5n4b4',
    labels = { app: 'web' },
    phase = 'Running',
  } = options;
  const statuses: Record<string, unknown[]> = { containerStatuses: [] };
  for (const container of containers) {
    const list = (statuses[container.kind ?? 'containerStatuses'] ??= []);
    list.push({
      name: container.name ?? 'app',
      state: container.state ?? { running: { startedAt: '2026-01-01T06:13:49Z' } },
      lastState: {
        terminated: { exitCode: 1, reason: 'Error', containerID: `containerd://${'99'.repeat(32)}` },
      },
      ready: true,
      restartCount: 1,
      image: 'registry.test/shop/web:1.2',
      imageID: container.imageId ?? `registry.test/shop/web@${imageDigest}`,
      containerID: `${container.runtime ?? 'containerd'}://${container.id}`,
      started: true,
    });
  }
  return {
    kind: 'Pod',
    apiVersion: 'v1',
    metadata: {
      name,
      generateName: 'web-6658cb9566-',
      namespace: 'shop',
      uid,
      resourceVersion: '17021',
      creationTimestamp: '2026-01-01T06:13:48Z',
      labels,
      annotations: { 'kubernetes.io/config.source': 'api', note: '{"items":[{"a":"}]"}] \\" é' },
      ownerReferences: [
        { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'web-6658cb9566', controller: true },
      ],
      managedFields: [
        { manager: 'kube-controller-manager', operation: 'Update', fieldsV1: { 'f:metadata': {} } },
      ],
      ...options.metadata,
    },
    spec: {
      containers: containers.map(({ name: own = 'app' }) => ({
        name: own,
        image: 'registry.test/shop/web:1.2',
        resources: { limits: { memory: '64Mi' } },
        volumeMounts: [
          {
            name: 'kube-api-access',
            readOnly: true,
            mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
          },
        ],
      })),
      restartPolicy: 'Always',
      serviceAccountName: 'web',
      serviceAccount: 'web',
      nodeName: 'node-1',
      tolerations: [{ key: 'node.kubernetes.io/not-ready', operator: 'Exists', effect: 'NoExecute' }],
      ...options.spec,
    },
    status: {
      phase,
      conditions: [{ type: 'Ready', status: 'True', lastProbeTime: null }],
      hostIP: '10.0.0.1',
      podIP: '10.244.0.8',
      qosClass: 'Burstable',
      ...statuses,
    },
  };
}

/** The document of a kubelet's /pods. */
export function podListOf(pods: readonly unknown[]): string {
  return JSON.stringify({ kind: 'PodList', apiVersion: 'v1', metadata: {}, items: pods });
}
