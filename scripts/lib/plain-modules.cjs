// Loaded into every test process before the runner's own hooks: they read and record each module that is loaded, for mocks
// and coverage, which this suite has not, in a thread of their own that takes longer than most test files.
require('node:module').register = () => {};
