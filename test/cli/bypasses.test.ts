import { describe, expect, test } from 'vitest';
import { renderEnvoyBootstrap } from '../../src/cli/envoy-bootstrap.ts';
import { settingBypasses } from './bypass-settings.ts';

const bootstrap: unknown = JSON.parse(
  renderEnvoyBootstrap(
    {
      workload: 'spiffe://example.org/ns/shop/sa/web',
      socket: '/run/countersign/workload.sock',
      inbound: '127.0.0.1:15443',
      app: '127.0.0.1:8080',
      inboundTcp: ['127.0.0.1:15444=127.0.0.1:5432'],
      outbound: ['127.0.0.1:15001=spiffe://example.org/ns/shop/sa/orders@127.0.0.1:15543'],
    },
    'json',
  ),
);

describe('ways around policy, by means of how the proxy is configured', () => {
  test.each(settingBypasses.map((one) => [`${one.ids}: ${one.attack}`, one] as const))('%s', (_, one) => {
    const { says = [], never = [] } = one;
    for (const [setting, value, times] of says) {
      expect({ setting, found: find(setting) }).toEqual({
        setting,
        found: Array.from({ length: times }, () => value),
      });
    }
    for (const setting of never) expect({ setting, found: find(setting) }).toEqual({ setting, found: [] });
  });
});

/** Every value of a setting; of the filters of HTTP their names, where one of them decides. */
function find(setting: string): readonly unknown[] {
  if (setting === 'grpc_service.timeout') {
    return settings(bootstrap, 'grpc_service')
      .map((service) => (service as { timeout?: string }).timeout)
      .filter((timeout) => timeout !== undefined);
  }
  if (setting !== 'http_filters') return settings(bootstrap, setting);
  return settings(bootstrap, setting)
    .map((filters) => (filters as readonly { name: string }[]).map(({ name }) => name))
    .filter((names) => names.length > 1);
}

function settings(part: unknown, name: string): readonly unknown[] {
  if (typeof part !== 'object' || part === null) return [];
  return Object.entries(part).flatMap(([key, value]) => [
    ...(key === name && !Array.isArray(part) ? [value] : []),
    ...(typeof value === 'string' && value === name ? [value] : []),
    ...settings(value, name),
  ]);
}
