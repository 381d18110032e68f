import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Cgroup, parseCgroups, placeLines, readCgroups } from '../../src/attest/cgroup.ts';
import { containerOf } from '../../src/attest/container.ts';
import { serviceUnitOf } from '../../src/attest/systemd.ts';

const [a, b] = ['ab'.repeat(32), 'cd'.repeat(32)];
const uid = '2c48913c-b29f-11e7-9350-020968147796';
const other = 'f0000000-b29f-11e7-9350-020968147796';
const under = uid.replaceAll('-', '_');
const file = 'd5dae8afc8f2a4e5a1b8e6f9c7d7a9d7';
const slices = `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod${under}.slice`;

describe('containers as the host sees them', () => {
  test.each<[string, string, string | null]>([
    ['cgroupfs, guaranteed', `/kubepods/pod${uid}/${a}`, uid],
    ['cgroupfs, burstable', `/kubepods/burstable/pod${uid}/${a}`, uid],
    ['cgroupfs, besteffort', `/kubepods/besteffort/pod${uid}/${a}`, uid],
    ['cgroupfs below kind', `/kubelet/kubepods/besteffort/pod${uid}/${a}`, uid],
    ['cgroupfs below Docker Desktop', `/kubepods/kubepods/besteffort/pod${uid}/${a}`, uid],
    ['a pod of a file on the node', `/kubepods/burstable/pod${file}/${a}`, file],
    ['systemd, containerd', `${slices}/cri-containerd-${a}.scope`, uid],
    ['systemd, CRI-O', `${slices}/crio-${a}.scope`, uid],
    ['systemd, CRI-O with crun', `${slices}/crio-${a}.scope/container`, uid],
    ['systemd, cri-dockerd', `${slices}/docker-${a}.scope`, uid],
    ['systemd, guaranteed', `/kubepods.slice/kubepods-pod${under}.slice/cri-containerd-${a}.scope`, uid],
    [
      'systemd below kind',
      `/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod${under}.slice/cri-containerd-${a}.scope`,
      uid,
    ],
    ['containerd that was not told', `/kubepods-besteffort-pod${under}.slice:cri-containerd:${a}`, uid],
    [
      'the same within its service',
      `/system.slice/containerd.service/kubepods-besteffort-pod${under}.slice:cri-containerd:${a}`,
      uid,
    ],
    ['Docker, cgroupfs', `/docker/${a}`, null],
    ['Docker, systemd', `/system.slice/docker-${a}.scope`, null],
    ['systemd within Docker', `/docker/${a}/system.slice/containerd.service`, null],
    ['a pod within Docker', `/docker/${a}/kubepods/besteffort/pod${uid}/${b}`, null],
    ['a container that names another below', `/kubepods/pod${uid}/${a}/kubepods/pod${other}/${b}`, uid],
    ['a container that goes on as another', `${slices}/crio-${a}.scope/crio-${b}.scope`, uid],
  ])('%s', (_, path, podUid) => {
    const found = { containerId: a, podUid };
    expect(containerOf(host(`0::${path}\n`))).toEqual(found);
    expect(containerOf(host(`9:pids:${path}\n1:name=systemd:${path}\n0::/\n`))).toEqual(found);
  });

  test.each([
    ['the top', '/'],
    ['a shell', '/user.slice/user-1000.slice/session-3.scope'],
    ['what a user named', `/user.slice/user-1000.slice/user@1000.service/kubepods/pod${uid}/${a}`],
    ['what a service named', `/system.slice/web.service${slices}/crio-${a}.scope`],
    ['rootless Docker', `/user.slice/user-1000.slice/user@1000.service/user.slice/docker-${a}.scope`],
    ['the monitor of a container', `/system.slice/crio-conmon-${a}.scope`],
    ['the monitor in the pod', `${slices}/crio-conmon-${a}.scope`],
    ['the pod itself', slices],
    ['no uid', `/kubepods/pod/${a}`],
    ['a short uid', `/kubepods/pod2c48913c/${a}`],
    ['an id of 63 digits', `/kubepods/pod${uid}/${a.slice(1)}`],
    ['an id of 65 digits', `/kubepods/pod${uid}/${a}0`],
    ['an id in upper case', `/kubepods/pod${uid}/${a.toUpperCase()}`],
    ['an id with a tail', `/docker/${a}-x`],
    [
      'slices that do not lie in one another',
      `/kubepods.slice/kubepods-besteffort.slice/kubepods-burstable-pod${under}.slice/crio-${a}.scope`,
    ],
    ['Docker below a group of its own', `/team/${a}`],
    ['Docker not at the top', `/x/docker/${a}`],
  ])('none in %s', (_, path) => {
    expect(containerOf(host(`0::${path}\n`))).toBeUndefined();
  });

  test.each([
    ['two containers', `2:cpu:/docker/${a}\n1:pids:/docker/${b}\n`],
    ['two pods', `2:cpu:/kubepods/pod${uid}/${a}\n1:pids:/kubepods/pod${other}/${a}\n`],
    ['a pod and Docker', `2:cpu:/kubepods/pod${uid}/${a}\n1:pids:/docker/${a}\n`],
  ])('none when hierarchies name %s', (_, text) => {
    expect(containerOf(host(text))).toBeUndefined();
  });
});

describe('containers as a pod with hostPID sees them', () => {
  const init = parseCgroups('0::/../../../../init.scope\n');
  const seen = (path: string): readonly Cgroup[] => placeLines(parseCgroups(`0::${path}\n`), init);
  test.each([
    ['of its own class, systemd', `/../../kubepods-burstable-pod${under}.slice/cri-containerd-${a}.scope`],
    ['of its own class, cgroupfs', `/../../pod${uid}/${a}`],
    [
      'of another class',
      `/../../../kubepods-burstable.slice/kubepods-burstable-pod${under}.slice/crio-${a}.scope`,
    ],
    ['of another class, cgroupfs', `/../../../burstable/pod${uid}/${a}`],
    ['guaranteed', `/../../../kubepods-pod${under}.slice/crio-${a}.scope`],
    ['from the top', `/../../../..${slices}/crio-${a}.scope`],
  ])('%s', (_, path) => {
    expect(containerOf(seen(path))).toEqual({ containerId: a, podUid: uid });
  });

  test.each([
    ['its own container', '/'],
    ['below its own container', `/kubepods/pod${uid}/${a}`],
    ['beside it in its pod', `/../cri-containerd-${a}.scope`],
    ['beside it, with a name below', `/../cri-containerd-${a}.scope/pod${uid}/${b}`],
    ['Docker at an unknown height', `/../../docker/${a}`],
    ['a user at the top', `/../../../../user.slice/user-1000.slice/user@1000.service/pod${uid}/${a}`],
  ])('none for %s', (_, path) => {
    expect(containerOf(seen(path))).toBeUndefined();
  });

  test('services only where the top is certain', () => {
    expect(serviceUnitOf(seen('/../../../../system.slice/web.service'))).toBe('web.service');
    expect(serviceUnitOf(seen('/../../../system.slice/web.service'))).toBeUndefined();
    expect(serviceUnitOf(seen('/system.slice/web.service'))).toBeUndefined();
    const unsure = placeLines(parseCgroups('0::/../../system.slice/web.service\n'), []);
    expect(serviceUnitOf(unsure)).toBeUndefined();
  });
});

test('what lies outside the namespace we share with init is not placed', () => {
  expect(host(`0::/../docker/${a}\n`)).toEqual([]);
});

describe('services', () => {
  test.each([
    ['in system.slice', '/system.slice/nginx.service', 'nginx.service'],
    ['with cgroups of its own', '/system.slice/nginx.service/workers/1', 'nginx.service'],
    ['in a slice below', '/system.slice/system-getty.slice/getty@tty1.service', 'getty@tty1.service'],
    ['in a slice of its own', '/shop.slice/shop-web.slice/web.service', 'web.service'],
    ['at the top', '/web.service', 'web.service'],
    ['escaped by systemd', '/system.slice/_cpu.service', 'cpu.service'],
    ['escaped by its author', '/system.slice/a\\x2db.service', 'a\\x2db.service'],
    [
      'of a user: the outer one only',
      '/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service',
      'user@1000.service',
    ],
    ['that names another below', '/system.slice/a.service/system.slice/b.service', 'a.service'],
  ])('%s', (_, path, unit) => {
    expect(serviceUnitOf(host(`0::${path}\n`))).toBe(unit);
    expect(serviceUnitOf(host(`1:name=systemd:${path}\n0::${path}\n`))).toBe(unit);
    expect(serviceUnitOf(host(`2:cpu:/\n1:name=systemd:${path}\n0::/\n`))).toBe(unit);
  });

  test.each([
    ['the top', '0::/\n'],
    ['a scope', '0::/init.scope\n'],
    ['a session', '0::/user.slice/user-1000.slice/session-3.scope\n'],
    ['a service below a scope', '0::/system.slice/a.scope/b.service\n'],
    ['a service in Docker', `0::/docker/${a}/system.slice/b.service\n`],
    ['a service in a container', `0::${slices}/crio-${a}.scope/system.slice/b.service\n`],
    ['a hierarchy that systemd does not manage', '2:cpu:/system.slice/web.service\n'],
    ['a slice out of place', '0::/shop-web.slice/web.service\n'],
    ['slices that do not lie in one another', '0::/shop.slice/team-web.slice/web.service\n'],
    ['a template', '0::/system.slice/getty@.service\n'],
    ['a name of nothing', '0::/system.slice/.service\n'],
    ['a name with a space', '0::/system.slice/a b.service\n'],
    ['a name of 256', `0::/system.slice/${'a'.repeat(248)}.service\n`],
    ['a service that is gone', '0::/system.slice/web.service (deleted)\n'],
    ['two services', '1:name=systemd:/system.slice/a.service\n0::/system.slice/b.service\n'],
  ])('none in %s', (_, text) => {
    expect(serviceUnitOf(host(text))).toBeUndefined();
  });
});

test.each([
  ['a line without fields', '0::/a\nnonsense\n'],
  ['a relative path', '0::a\n'],
  ['an empty name', '0::/a//b\n'],
  ['a way up in the middle', '0::/a/../b\n'],
  ['a dot', '0::/a/./b\n'],
  ['a negative hierarchy', '-1:x:/a\n'],
  ['64 KiB', `0::/${'a'.repeat(65_536)}\n`],
])('a file with %s has no lines', (_, text) => {
  expect(parseCgroups(text)).toEqual([]);
});

test('this process is read', () => {
  expect(() => readCgroups(process.pid)).not.toThrow();
  expect(readCgroups(2 ** 30)).toEqual([]);
});

describe('properties', () => {
  const evil = fc.oneof(
    fc.constantFrom(
      'kubepods',
      `pod${other}`,
      b,
      'system.slice',
      'evil.service',
      `docker-${b}.scope`,
      `crio-${b}.scope`,
      'kubepods.slice',
      `kubepods-pod${other}.slice`,
      `kubepods-pod${other}.slice:cri-containerd:${b}`,
      'docker',
      '0::',
      ' (deleted)',
    ),
    fc.string({ minLength: 1, maxLength: 20 }).map((text) => text.replace(/[/\n\0]/g, '_')),
  );
  const below = fc
    .array(
      evil.filter((name) => name !== '.' && name !== '..'),
      { minLength: 1, maxLength: 6 },
    )
    .map((names) => names.join('/'));
  const places = [
    `/kubepods/pod${uid}/${a}`,
    `${slices}/cri-containerd-${a}.scope`,
    `/docker/${a}`,
    `/system.slice/docker-${a}.scope`,
    '/system.slice/web.service',
    '/user.slice/user-1000.slice/user@1000.service',
    '/user.slice/user-1000.slice/session-3.scope',
    `/kubepods-pod${under}.slice:cri-containerd:${a}`,
    `/system.slice/crio-conmon-${a}.scope`,
    `/machine.slice/libpod-${a}.scope`,
    `/team/${a}`,
  ];

  test('no name below the cgroup a process was put in changes anything', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...places),
        below,
        fc.constantFrom('0::', '1:name=systemd:'),
        (place, more, line) => {
          const [plain, deeper] = [host(`${line}${place}\n`), host(`${line}${place}/${more}\n`)];
          expect(deeper).toHaveLength(1);
          expect(containerOf(deeper)).toEqual(containerOf(plain));
          expect(serviceUnitOf(deeper)).toEqual(serviceUnitOf(plain));
        },
      ),
      { numRuns: 2_000 },
    );
  });

  test('the same as a pod sees it', () => {
    const above = ['/../..', '/../../..'];
    const tails = [
      `/pod${uid}/${a}`,
      `/kubepods-besteffort-pod${under}.slice/crio-${a}.scope`,
      `/crio-${a}.scope`,
      '/web.service',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...above), fc.constantFrom(...tails), below, (up, tail, more) => {
        const place = (path: string) => placeLines(parseCgroups(`0::${path}\n`), []);
        expect(containerOf(place(`${up}${tail}/${more}`))).toEqual(containerOf(place(`${up}${tail}`)));
        expect(containerOf(place(`/${more}`))).toBeUndefined();
      }),
      { numRuns: 1_000 },
    );
  });

  test('nothing throws, whatever the file holds', () => {
    const line = fc.oneof(
      fc.string({ maxLength: 80 }),
      below.map((path) => `0::/${path}`),
    );
    fc.assert(
      fc.property(fc.array(line, { maxLength: 8 }), (lines) => {
        const placed = host(lines.join('\n'));
        containerOf(placed);
        serviceUnitOf(placed);
      }),
      { numRuns: 2_000 },
    );
  });
});

function host(text: string): readonly Cgroup[] {
  return placeLines(parseCgroups(text), undefined);
}
