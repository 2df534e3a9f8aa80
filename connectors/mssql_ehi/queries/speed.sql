-- Tables that the last sync read at less than half of their usual pace.
SELECT latest.table_name, latest.mode, latest.rows_read, latest.rows_per_second, usual.rows_per_second AS usual
FROM sync_validation_tables latest
JOIN (SELECT table_name, mode, AVG(rows_per_second) AS rows_per_second
      FROM sync_validation_tables
      WHERE rows_read > 0
      GROUP BY table_name, mode) usual
  ON usual.table_name = latest.table_name AND usual.mode = latest.mode
WHERE latest.sync_timestamp = (SELECT MAX(sync_timestamp) FROM sync_validation)
  AND latest.rows_read > 0
  AND latest.rows_per_second < usual.rows_per_second / 2
ORDER BY latest.rows_per_second / usual.rows_per_second;
