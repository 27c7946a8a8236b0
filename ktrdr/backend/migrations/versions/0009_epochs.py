"""The metrics of each epoch, while there is no model that has them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "operation_epochs",
        sa.Column("operation_id", sa.String(length=64), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("metrics", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operations.id"], name=op.f("fk_operation_epochs_operation_id_operations")
        ),
        sa.PrimaryKeyConstraint("operation_id", "epoch", name=op.f("pk_operation_epochs")),
    )


def downgrade() -> None:
    """Drop it: models have theirs."""
    op.drop_table("operation_epochs")
