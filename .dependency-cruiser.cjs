/** The architecture as rules: data flows one way (docs/ARCHITECTURE.md, "Folders and directions"). */
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'leaves-import-nothing',
      severity: 'error',
      from: { path: '^src/leaves' },
      to: { path: '^src/(?!leaves)' },
    },
    {
      name: 'fs-below-replica',
      severity: 'error',
      from: { path: '^src/fs' },
      to: { path: '^src/(?!fs|leaves)' },
    },
    {
      name: 'replica-below-daemon',
      severity: 'error',
      from: { path: '^src/replica' },
      to: { path: '^src/(?!replica|fs|leaves)' },
    },
    {
      name: 'broker-sees-neither-fs-nor-replica',
      severity: 'error',
      from: { path: '^src/broker' },
      to: { path: '^src/(fs|replica|cli|daemon)' },
    },
    {
      name: 'policy-is-pure',
      severity: 'error',
      from: { path: '^src/broker/policy' },
      to: { path: '^(src/(?!leaves|broker/policy)|node:)' },
    },
    {
      name: 'control-sees-neither-fs-nor-replica',
      severity: 'error',
      from: { path: '^src/control' },
      to: { path: '^src/(?!control|leaves)' },
    },
    {
      name: 'cli-talks-through-control',
      severity: 'error',
      from: { path: '^src/cli' },
      to: { path: '^src/(fs|replica|broker)' },
    },
    {
      name: 'nothing-imports-the-cli',
      severity: 'error',
      from: { path: '^src/(?!cli)' },
      to: { path: '^src/cli' },
    },
    {
      name: 'no-orphans',
      severity: 'error',
      from: { orphan: true, pathNot: '(-worker|-thread|main|\\.d)\\.ts$' },
      to: {},
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
  },
};
