/* The pages, by the first part of their address: their names, and the keys that lead to them after "g". */

export const PAGES = {
  "": { name: "Overview", key: "o" },
  runs: { name: "Runs", key: "r" },
  incidents: { name: "Incidents", key: "i" },
  migrations: { name: "Migrations", key: "m" },
  locks: { name: "Locks", key: "l" },
  nodes: { name: "Nodes", key: "n" },
  plugins: { name: "Plugins", key: "p" },
};
