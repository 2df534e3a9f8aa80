-- When each table was last read to its end, the longest ago first, and how many syncs have tried it
-- since, if they did not succeed.
SELECT tried.table_name,
       done.sync_timestamp AS last_completed,
       SUM(CASE WHEN done.sync_timestamp IS NULL OR tried.sync_timestamp > done.sync_timestamp
                THEN 1 ELSE 0 END) AS failed_since
FROM sync_validation_tables tried
LEFT JOIN (SELECT table_name, MAX(sync_timestamp) AS sync_timestamp
           FROM sync_validation_tables
           WHERE completed
           GROUP BY table_name) done
  ON done.table_name = tried.table_name
GROUP BY tried.table_name, done.sync_timestamp
ORDER BY done.sync_timestamp, tried.table_name;
