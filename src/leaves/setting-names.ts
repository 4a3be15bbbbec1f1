/** What an operator calls the settings of a port, for errors that say what to change. */
export interface SettingNames {
  readonly listen: string;
  readonly tls: string;
  readonly insecure: string;
}

/** On a command line. */
export const FLAG_NAMES: SettingNames = {
  listen: '--listen',
  tls: '--tls-ca, --tls-cert and --tls-key',
  insecure: '--insecure',
};

/** In the configuration of a scheduler. */
export const KEY_NAMES: SettingNames = {
  listen: "'listen' in the configuration",
  tls: "'ca', 'cert' and 'key' of 'tls' in the configuration",
  insecure: "'insecure'",
};
