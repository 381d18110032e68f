/** A way around policy that our proxies are configured against: what their bootstrap says, and what it may never say. */
export type SettingBypass = {
  readonly ids: string;
  readonly attack: string;
  /** Values of a setting, wherever it stands; with the number of places. */
  readonly says?: readonly (readonly [setting: string, value: unknown, times: number])[];
  readonly never?: readonly string[];
};

/** Of a sidecar with HTTP and TCP in, and HTTP out. */
export const settingBypasses: readonly SettingBypass[] = [
  {
    ids: 'CVE-2023-27488 CVE-2024-23324',
    attack: 'a check that fails, and failures that let calls pass',
    says: [
      ['failure_mode_allow', false, 2],
      ['encode_raw_headers', true, 1],
    ],
    never: ['failure_mode_allow_header_add', 'proxy_protocol', 'envoy.filters.listener.proxy_protocol'],
  },
  {
    ids: 'ext-authz-timeout',
    attack: 'a decision that never comes: the default elsewhere is ten minutes',
    says: [['grpc_service.timeout', '0.25s', 2]],
  },
  {
    ids: 'ext-authz-status',
    attack: 'an outage that looks like a denial, so that nobody repairs it',
    says: [['status_on_error', { code: 'ServiceUnavailable' }, 1]],
  },
  {
    ids: 'partial-body',
    attack: 'a decision by a part of a body',
    never: ['with_request_body', 'allow_partial_message'],
  },
  {
    ids: 'filter-order',
    attack: 'a filter behind the decision that changes what was decided, or its route',
    says: [['http_filters', ['envoy.filters.http.ext_authz', 'envoy.filters.http.router'], 1]],
    never: ['clear_route_cache', 'disabled', 'typed_per_filter_config', 'prefix_rewrite', 'regex_rewrite'],
  },
  {
    ids: 'CVE-2026-33433 CVE-2026-39858 CVE-2026-54763',
    attack: 'headers with underscores',
    says: [['headers_with_underscores_action', 'REJECT_REQUEST', 2]],
  },
  {
    ids: 'CVE-2019-9901 CVE-2021-29492 CVE-2026-73551',
    attack: 'a path that the proxy, policy and the application read differently',
    says: [
      ['normalize_path', true, 2],
      ['merge_slashes', true, 2],
      ['path_with_escaped_slashes_action', 'REJECT_REQUEST', 2],
    ],
    never: ['ignore_path_parameters_in_path_matching'],
  },
  {
    ids: 'identity-in-headers CVE-2024-45806',
    attack: 'headers in which the caller says who it is, or that it is one of us',
    says: [
      ['forward_client_cert_details', 'SANITIZE_SET', 1],
      ['use_remote_address', true, 1],
    ],
    never: ['internal_address_config'],
  },
  {
    ids: 'forwarded-for',
    attack: 'an address of the client that the client has written',
    never: ['xff_num_trusted_hops', 'original_ip_detection_extensions'],
  },
  {
    ids: 'CVE-2022-40716 CVE-2025-66220 CVE-2026-47778',
    attack: 'a certificate of which policy sees one name',
    says: [['include_peer_certificate', true, 2]],
  },
  {
    ids: 'CVE-2024-39321 CVE-2026-32305',
    attack:
      'a request in the first message of TLS, before the certificate; another TLS configuration by another name',
    says: [
      ['require_client_certificate', true, 2],
      ['disable_stateless_session_resumption', true, 2],
      ['disable_stateful_session_resumption', true, 2],
      ['tls_minimum_protocol_version', 'TLSv1_3', 3],
    ],
    never: [
      'filter_chain_match',
      'default_filter_chain',
      'quic_options',
      'udp_listener_config',
      'early_data_policy',
    ],
  },
  {
    ids: 'CVE-2026-73548 CVE-2024-23326 CVE-2025-64763 CVE-2026-73547 upgrade',
    attack: 'a connection that becomes another protocol after the decision',
    never: ['upgrade_configs', 'upgrade_type', 'allow_connect', 'connect_matcher', 'connect_config'],
  },
  {
    ids: 'CVE-2026-88004 GHSA-v67p-phpq-fc8x',
    attack: 'headers that come after the body, when the decision has been made',
    never: ['enable_trailers', 'merge_trailers_into_headers'],
  },
];
