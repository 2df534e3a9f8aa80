-- Tables that failed in the last sync, and those whose numbers of rows at the source and of rows that
-- were sent since the first load do not fit: the source has more rows than ever were sent.
-- For an exact count of one table, compare source_rows with
--   SELECT COUNT(*) FROM patients WHERE NOT _fivetran_deleted;
SELECT latest.table_name, latest.completed, latest.mode, latest.source_rows, sent.rows_sent
FROM sync_validation_tables latest
JOIN (SELECT table_name, SUM(rows_sent) AS rows_sent
      FROM sync_validation_tables
      GROUP BY table_name) sent
  ON sent.table_name = latest.table_name
WHERE latest.sync_timestamp = (SELECT MAX(sync_timestamp) FROM sync_validation)
  AND (NOT latest.completed OR latest.source_rows > sent.rows_sent)
ORDER BY latest.table_name;
