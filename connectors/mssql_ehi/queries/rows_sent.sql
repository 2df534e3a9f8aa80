-- Rows and deletes that were sent, by month and table, the most first. Fivetran bills a row once in a
-- month, however often it was sent: this is the most that a table can cost.
SELECT EXTRACT(YEAR FROM sync_timestamp) AS year_sent,
       EXTRACT(MONTH FROM sync_timestamp) AS month_sent,
       table_name,
       SUM(rows_sent) AS rows_sent,
       SUM(deletes_sent) AS deletes_sent,
       COUNT(*) AS syncs
FROM sync_validation_tables
GROUP BY EXTRACT(YEAR FROM sync_timestamp), EXTRACT(MONTH FROM sync_timestamp), table_name
ORDER BY year_sent DESC, month_sent DESC, rows_sent DESC, table_name;
