// The handlers of the stub tasks. JavaScript, since only the types of TypeScript are missing from it.

import { Dag, DagRegistry, serveDags } from "apache-airflow-ts-sdk";

const dag = new Dag("typescript_tasks");

dag.task("look", async ({ client }) => {
  const pull = (taskId) => client.getXCom({ key: "return_value", taskId });
  const pulled = { large: await pull("large"), dated: await pull("dated"), small: await pull("small") };
  const made = Array.from({ length: 5000 }, (_, id) => ({ id, text: "x".repeat(20) }));
  return { pulled: JSON.stringify(pulled), made };
});

dag.task("hand_on", ({ client }) => client.getXCom({ key: "return_value", taskId: "large" }));

await serveDags(new DagRegistry(dag));
