/**
 * One of several processes that change trees at once: `node tree-process.js JSON`. Works in its private folder and in
 * the one it shares, checks the private one against its model, through the mount and in the backing folder, and prints
 * what it has done, or `fault` and what is wrong.
 */
import { Random } from '../support/random.js';
import type { TreeOrders, TreeReport } from './concurrent-trees.js';
import { ModelTree } from './model-tree.js';
import { SharedTree } from './shared-tree.js';

const perform = (orders: TreeOrders): TreeReport => {
  const random = new Random(orders.seed);
  const { links, holes, stamp } = orders;
  const model = new ModelTree({ root: orders.privateFolder, random, links });
  const shared = new SharedTree({ root: orders.sharedFolder, random, stamp, links, holes });
  for (let i = 0; i < orders.operations; i++) {
    model.step();
    shared.step();
  }
  model.close();
  model.check(orders.privateFolder);
  model.check(orders.privateBacking);
  return { answers: shared.answers };
};

const orders = JSON.parse(process.argv[2] ?? '{}') as TreeOrders;
try {
  process.stdout.write(`${JSON.stringify(perform(orders))}\n`);
} catch (error) {
  process.stdout.write(`fault ${(error as Error).stack}\n`);
  process.exitCode = 1;
}
